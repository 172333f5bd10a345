"""Bad bytes: damaged, absurd and hostile files are refused with a message, or read rightly."""
