"""Measurements that users can rerun: `dualview bench ...`."""
