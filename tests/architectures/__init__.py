"""Small random models of most architectures that llama.cpp knows, for the test of exactness."""
