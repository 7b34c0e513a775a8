"""Run the whole stack on one machine: template.yaml is deployed to an AWS emulator (`make local-aws`)."""
