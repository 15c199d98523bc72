# `make demo` is `./do demo`, and so on; see ./do for what there is.
.DEFAULT_GOAL := help
.PHONY: demo test pytest lint docs lock bench aarch64 clean help
demo test pytest lint docs lock bench aarch64 clean help:
	@./do $@ $(ARGS)
