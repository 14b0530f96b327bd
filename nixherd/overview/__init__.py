"""What runs where, what it should be, and how it came there: one document, shown in the terminal, as JSON, as pages
and as metrics.

`document` are its values, `judge` compares what was seen with what is wanted; both are pure. `machine`, `guests` and
`secrets` ask, `expected` and `kept` remember.
"""
