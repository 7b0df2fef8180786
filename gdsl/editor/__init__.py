"""What an editor asks of a text: pure functions of the text and a place in it, and a language server over them.

The server alone needs pygls, ``pip install gdsl[lsp]``; nothing here needs torch.
"""
