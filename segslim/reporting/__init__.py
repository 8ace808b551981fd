"""What people and programs read: report.json, the pages, the table, the lines on the terminal.

Artifacts and outcomes come in, text and files go out. It must not know how anything was made, and imports no Paddle.
"""
