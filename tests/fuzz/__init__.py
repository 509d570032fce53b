"""Fuzzing every decoder: with Hypothesis in the unit tests, guided by coverage with atheris (`make fuzz`).

`targets` has one function a decoder and what may come of any bytes, `tls_targets` those of NBD over TLS;
`one` fuzzes one of them, `__main__` all in turn. What was found is kept in `findings/TARGET/`, and every test
run tries it again.
"""
