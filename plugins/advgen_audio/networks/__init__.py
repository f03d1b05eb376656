"""Players of waveforms from noise and class: the inverse-STFT generator with its critics, and WaveGAN."""
