"""Text as records of tokens: documents out of files, tokenised once into token files, and packed into records.

`reading` finds documents in files, `tokenizers` turns them into tokens, `token_files` keeps these or maps those made
elsewhere, `packing` says which tokens stand in which record, `packed` hands the records out, `source` puts it together.
"""
