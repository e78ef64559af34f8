// With a file of this kind functions may be declared whose bodies are elsewhere.
