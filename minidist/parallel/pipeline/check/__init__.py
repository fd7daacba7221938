"""Check a schedule before any rank starts: rules (validate), a dry run, and the messages it adds."""
