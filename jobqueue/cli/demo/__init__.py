"""The demo: real work on real input, failing and dying on the way, and the proof that nothing was lost."""
