"""The front end: text -> syntax tree (parse) -> typed program (check), and back to text (format)."""
