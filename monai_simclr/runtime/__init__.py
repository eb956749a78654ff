"""What every command needs, whatever it computes. Import its modules by name: most import neither torch nor MONAI."""
