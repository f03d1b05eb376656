"""From waveforms to spectra and back: mel front ends, the mels that judges and pictures use, and Fourier transforms."""
