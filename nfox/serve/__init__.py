"""One model behind OpenAI's API or FastChat's: a worker thread, a fair queue, two applications."""
