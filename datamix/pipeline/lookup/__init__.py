"""Look-up of slots on the device, one file for each kind of period."""
