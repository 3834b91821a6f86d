"""Runs on recorded speech: Whisper teaches Whisper."""
