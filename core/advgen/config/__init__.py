"""The run configuration: ``model`` declares it, ``load`` merges and checks it, ``toml`` reads lines and writes it."""
