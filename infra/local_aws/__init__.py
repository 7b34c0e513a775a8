"""The whole stack on one machine, deployed from template.yaml to an AWS emulator: `make local-aws`."""
