"""Trainyard's stages and the nouns they share. Import what you need from the modules: nothing is loaded here."""
