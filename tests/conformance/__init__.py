"""Runs the interpreter's own asyncio tests on oxloop, with stock asyncio as the control."""
