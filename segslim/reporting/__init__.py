"""What people and programs read: report.json, the table, the lines on the terminal. It reads artifacts only."""
