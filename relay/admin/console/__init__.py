"""The operator's web console: pages for people, beside the admin API and on the same listener.

Pages are made on the server (jinja2) and need no script; a little htmx keeps the overview fresh and shows an explanation in its place. Nothing
comes from anywhere else. What a page shows and does goes through the endpoints of the admin API, within the process (`desk`).
"""
