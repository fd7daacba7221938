"""Check a schedule before any rank starts."""
