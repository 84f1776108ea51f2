"""Rounding in which later weights of a row take over the errors of earlier ones (OBS, GPTQ), for every product."""
