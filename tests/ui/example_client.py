"""The studio from another program, with gradio_client: the README's example. ADDRESS and a data file are given on the
command line.
"""

import sys
import time

from gradio_client import Client, handle_file

address, file, model = (*sys.argv[1:], "starter")[:3]

studio = Client(address)  # where there is a login: Client(address, auth=("owner", PASSWORD))
data = studio.predict(handle_file(file), "", api_name="/import")["source"]
print(studio.predict(data, "auto", api_name="/inspect"))

order = f"""
model: {model}
data: {{train: {data}, max_length: 256}}
method: {{name: lora, rank: 8}}
training: {{max_steps: 10}}
"""
forecast = studio.predict(order, api_name="/estimate")
print(f"{forecast['total'] / 2**30:.1f} GiB, about {forecast['seconds']:.0f} s")

run = studio.predict(order, api_name="/start")["run"]
while (state := studio.predict(run, api_name="/status"))["state"] in ("queued", "starting", "running"):
    print(state["step"], state["train_loss"])
    time.sleep(2)
print(state["state"], state["eval_loss_before"], "->", state["eval_loss"])
# studio.predict(run, False, api_name="/stop") ends a run after its step and keeps what it learnt

print(studio.predict(run, "How do I clean a window?", api_name="/chat")["answer"])
