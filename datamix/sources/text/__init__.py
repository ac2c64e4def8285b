"""Text as records of tokens: documents from files, tokenised once into token files, and packed into records.

`reading` finds documents in files, `tokenizers` turns them into tokens, `token_files` stores these or maps files made
elsewhere, `packing` decides which tokens belong to which record, `packed` reads the records, `source` combines these;
`sample` has text to try them with.
"""
