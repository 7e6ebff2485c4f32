"""What is known before measuring: energies, proximal maps and denoisers, classical and learned."""
