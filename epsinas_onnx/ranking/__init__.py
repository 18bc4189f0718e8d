"""Sets of networks in order: ranks by several scores, their combination, and how far the scores agree."""
