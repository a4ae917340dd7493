"""Audio codes to sound: flow matching makes mels of them, a vocoder makes samples of those (report §2.3, SPEC §7)."""
