"""What a model can learn from records: `choose` finds it by the leaves of a mix; a file each."""
