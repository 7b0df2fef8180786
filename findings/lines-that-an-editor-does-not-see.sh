#!/usr/bin/env bash
# pygls 2.1.1 keeps the text that an editor sends, and applies its edits to lines as Python's `str.splitlines` sees them. In the Language
# Server Protocol a line ends with \n, \r\n or \r only: after a form feed, a line separator (U+2028) or a next line (U+0085), all of which
# stand in real files, an edit lands in another line than in the editor, and all that a server says after that is of another text.
#
# Seen with pygls 2.1.1 ("# a", U+2028, "b", then "x = 1"; the editor replaces the 1 of the second line by a 2):
#   '# a\u2028b2\nx = 1\n', where the editor has '# a\u2028b\nx = 2\n'
. "$(dirname "$0")/lib.sh"
packages pygls==2.1.1
python <<'PY'
from lsprotocol import types
from pygls.workspace import TextDocument

document = TextDocument("file:///a", "# a\u2028b\nx = 1\n")
place = types.Range(types.Position(1, 4), types.Position(1, 5))
document.apply_change(types.TextDocumentContentChangePartial(range=place, text="2"))
print(ascii(document.source), "where the editor has", ascii("# a\u2028b\nx = 2\n"))
assert document.source == "# a\u2028b2\nx = 1\n", "changed"
PY
