"""Fine-Tuning Studio: the map. Read this first, then methods/lora.py, config.py, worker/train.py, ui/tune.py.

Two ideas. A run is a folder: what was ordered, what happened and what came out are files in it, and nothing about a
run is kept anywhere else. And three kinds of process, one wall: the page's process knows gradio and not torch; a
worker knows torch and not gradio; both know the core, which knows neither. Between page and trainer stands one small
supervisor per run.

    browser -- page -- writes config.yaml, starts --> studio.supervise RUN --> studio.worker.train RUN
                ^                                                                     | appends
                +----------- reads only the new lines, once a second ---------- events.jsonl
    browser -- page <-- OpenAI-style HTTP, loopback, secret token --> studio.worker.serve MODEL...

The top level holds the product's nouns; a folder beside a noun holds what it is made of:

    device     driver/    each maker's cards and what is known of them, by kind; the installed torch
    model      base/      where a base model comes from, its headers, its linears, how it is held in few bits;
                          tokenizer_files.py: its template and tokens; proved.py: families held against transformers
    template   text/      the sandbox, the assistant's spans; template_check.py: before launch
    estimate   memory/    bytes, cause by cause;  forecast/  time, advice, what earlier runs teach
    auto                  the rule of each `auto` setting; auto_values.py: what each comes to and why, for the form;
                          resolve.py: all of them, with what the estimate says
    choice                the models to choose from (base/catalogue.json) and whether each fits (forecast/fits.py)
    preflight             the checks before a run exists
    place      places/    here, over SSH, as a Hub Job: relay.py tells of a run there, follow.py takes it in here
    origin                the run that an order starts from: SFT, then DPO (`start`)
    race       contest    several settings in turns over one base (worker/race.py); plan.py: over shares of the rows
    run        runs/      the folder and its state; attempts, claims, checkpoints, stops, recovery, diagnosis
    (a result) talk/      models and their server, conversations, votes
               evaluation/ what answers are worth: scores, intervals, verdict; evaluating.py measures a run
               making     rows out of a document, by another model
               influence: which rows taught it (without_rows: again without some); benchmark: tasks of lm-eval;
               side_job.py: a job beside a finished run, side_process.py: begun from the page
               scoring: a reward model's scores of a file; job_process.py: a job that gives one answer
    stage      stages/    what is learnt from what;  reward  rewards/  what an answer is worth; reward_trial
               export/    folders and their proof, card, report, the Hub

Numbers are floors: a file imports only from its own floor or below, and there is no cycle (tests/test_layers.py).
"""

__version__ = "0.1.0"

FLOORS = {
    0: (
        "bounded_http early_exit errors json_text kernels knob memory_peak plural quick_imports python_text registry "
        "request_body terminal"
    ),
    1: (
        "address crash home credentials child_process events process driver device cards base template text model "
        "yaml_text"
    ),
    2: (
        "new_tokens token_rows rendering tokens template_check data general combination evaluation contest "
        "footprint loading method methods reward rewards stage stages training program environment place trackers "
        "places"
    ),
    3: "config order_faults presets recipes auto",
    4: "memory estimate forecast run runs queue",
    5: (
        "combining evaluating origin race race_settings plan side_job side_process job_process influence without_rows "
        "judge making benchmark choice scoring reward_trial unused_settings preflight auto_values resolve doctor "
        "supervise relay bundle follow talk export"
    ),
    6: "worker ui",
    7: "commands __main__ page",
}
