"""Check a schedule before any rank starts: its rules, its messages, and a dry run to the end."""
