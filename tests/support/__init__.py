"""What several test files share: small runs, made-up hospitals, and groups of processes."""
