"""The security report, and the figures it is made of: mail in transit by TLS version, cipher and how it was verified, per partner.

`figures` gives the JSON shapes, `document` the whole report, `text`, `table` (CSV) and `page` (HTML) show it. No I/O.
"""
