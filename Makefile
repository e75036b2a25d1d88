# make setup   an environment in .venv
# make demo    render motions, convert, train and plot: a few minutes on two cores
# make demo-full    the demo, then everything that its network can be asked: some minutes more
# make test    the test suite          make lint    style          make bench    reading clips, and latency of networks
# make soak    trainings and conversions killed 200 times against ones left alone, 500 faults of machines, half an hour of
#              the demo's training that must not grow, hostile files, commands of the pages that take long: one and a
#              quarter hours on two cores, or as KILLS=200 FAULTS=500 SPELL_MINUTES=30 ATTACK_MINUTES=10 say
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
KILLS := 200
FAULTS := 500
SPELL_MINUTES := 30
ATTACK_MINUTES := 10
RUN := $(DEMO)/results/srtg_r3d_18_gates_False
BEST := $(RUN)/srtg_r3d_18_best.pth
SHOWN := right up grow clockwise

.PHONY: setup demo demo-full test soak lint bench

setup: .venv/installed

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements.txt
	touch $@

demo: setup
	rm -rf $(DEMO)/results
	$(BIN)/python -m data.synthetic $(DEMO)/videos --videos-per-class 100 --sheet $(DEMO)/motions.jpg
	$(BIN)/python -m data.convert $(DEMO)/videos $(DEMO)/motions --short-side 72
	$(BIN)/python -m data.labels folders $(DEMO)/motions --overwrite
	$(BIN)/python -m train --dataset $(DEMO)/motions --network srtg_r3d_18 --short-cycles \
	    --clip-length 8 --clip-size 64 --short-side 72 --train-frame-interval 4 --val-frame-interval 4 \
	    --batch-size 8 --workers 1 --augment none --flip False --clip-grad-norm 5 \
	    --lr-base 0.01 --lr-schedule cosine --warmup-epochs 1 --end-epoch 8 --save-frequency 8 --tensorboard --model-dir $(DEMO)/results
	$(BIN)/python -m train.plot $(RUN) -o $(DEMO)/curves.png

demo-full: demo
	$(BIN)/python -m data.verify $(DEMO)/motions
	$(BIN)/python -m data.browse $(DEMO)/motions --clip-length 8 --clip-size 64 --short-side 72 \
	    --train-frame-interval 4 --augment none --flip False -o $(DEMO)/clips.png --video $(DEMO)/clips.mp4
	$(BIN)/python -m train.plot $(RUN) -o $(DEMO)/curves.svg --schedule $(DEMO)/schedule.png
	$(BIN)/tensorboard --inspect --logdir $(RUN)
	$(BIN)/python -m train.evaluate $(BEST) --dataset $(DEMO)/motions --crops 1 --output $(DEMO)/evaluation
	$(BIN)/python -m train.export $(BEST) -o $(DEMO)/model.safetensors
	$(BIN)/python -m train.export $(BEST) -o $(DEMO)/model.pt2
	$(BIN)/python -m train.export $(BEST) -o $(DEMO)/model.onnx
	$(BIN)/python -m data.synthetic $(DEMO)/unseen --videos-per-class 1 --height 192 --seed 2
	$(BIN)/python -m train.predict $(BEST) $(DEMO)/unseen --top 3 --stride 4 --json $(DEMO)/answers.json \
	    --overlay $(DEMO)/overlay --gradcam $(DEMO)/attention --features $(DEMO)/features.npz
	$(BIN)/python tools/docs/filmstrip.py $(SHOWN:%=$(DEMO)/attention/%_00000.mp4) -o $(DEMO)/attention.jpg

test: setup
	$(BIN)/python -m pytest -n auto --dist worksteal

soak: setup
	$(BIN)/python -m tests.train.crash_recovery --kills $(KILLS)
	$(BIN)/python -m tests.data.crash_recovery --kills $(KILLS)
	$(BIN)/python -m tests.fault_injection --faults $(FAULTS)
	$(BIN)/python -m tests.fault_injection --spell $(SPELL_MINUTES)
	$(BIN)/python -m tests.fuzz --minutes $(ATTACK_MINUTES)
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m data.benchmark
	$(BIN)/python -m network.benchmark --network r3d_18 srtg_r3d_18 r3d_34 srtg_r3d_34 --size 112
