"""Sections of the settings, by who reads them; `profiles.config` makes one tree of them."""
