"""``gdsl explore``: a page in the browser that shows a program on its way to machine code, as it is typed.

A *view* is what the page shows of a program, as values that JSON has. Pure functions make its parts, and the page is
the same whether it asks a server for them or holds them itself.

    reading.py     text and settings to a checked program, or its mistakes
    making.py      a checked program compiled, with all that the other parts are made from
    origins.py     the lines of the text that each value, kernel and line of code comes from
    rewrites.py    the program before and after each rule that fired
    flow.py        kernels and steps as boxes, with what flows between them and what they cost
    formulas.py    costs as polynomials, which a page works out for other sizes by itself
    code.py        sources and machine code, line by line
    one_node.py    the values of one node, step by step
    machines.py    what machines can do at most
    view.py        all of these
    page/, page.py the page: plain HTML, CSS and JavaScript
    server.py      the page and its views over HTTP
    command.py     what the command line calls
"""
