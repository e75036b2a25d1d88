# make setup      install Python packages into .venv    make setup-optional   those of some flags too
# make demo       render videos, convert, train and plot: 4 to 6 minutes on two cores
# make demo-full  the demo, then verify, evaluate, export and predict with its model: some minutes more
# make test       all tests but the long ones    make lint   ruff and mypy        make bench  clip reading and network latency
# make soak       long tests, about an hour on two cores: training and conversion killed KILLS times each, FAULTS faults
#                 injected into training, a leak test of LEAK_MINUTES, FUZZ_INPUTS untrusted inputs, slow tests
# make gpu        check a GPU against the CPU, then measure training on it: 8 minutes, without setup; tables in gpu_results/
# make results    the tables of docs/results.md, from the sets in REAL: many hours on two cores, goes on where it stopped
PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
KILLS := 200
FAULTS := 500
LEAK_MINUTES := 30
FUZZ_INPUTS := 10000
RUN := $(DEMO)/results/srtg_r3d_18_gates_False
BEST := $(RUN)/srtg_r3d_18_best.pth
REAL := real
WORK := results/real
CLASSES := right up grow clockwise

.PHONY: setup setup-optional demo demo-full test soak gpu lint bench results

setup: .venv/installed

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -r requirements.txt
	touch $@

setup-optional: setup
	$(BIN)/pip install --quiet -r requirements-optional.txt

demo: setup
	rm -rf $(DEMO)/results
	$(BIN)/python -m data.synthetic $(DEMO)/videos --videos-per-class 100
	$(BIN)/python -m data.convert $(DEMO)/videos $(DEMO)/shapes --short-side 72
	$(BIN)/python -m data.labels folders $(DEMO)/shapes --overwrite
	$(BIN)/python -m train --dataset $(DEMO)/shapes --network srtg_r3d_18 --short-cycles \
	    --clip-length 8 --clip-size 64 --short-side 72 --train-frame-interval 4 --val-frame-interval 4 \
	    --batch-size 8 --workers 1 --augment none --flip False --clip-grad-norm 5 \
	    --lr-base 0.01 --lr-schedule cosine --warmup-epochs 1 --end-epoch 8 --save-frequency 8 --tensorboard --model-dir $(DEMO)/results
	$(BIN)/python -m train.plot $(RUN) -o $(DEMO)/curves.png

demo-full: demo
	$(BIN)/python -m data.verify $(DEMO)/shapes
	$(BIN)/python -m data.browse $(DEMO)/shapes --clip-length 8 --clip-size 64 --short-side 72 \
	    --train-frame-interval 4 --augment none --flip False -o $(DEMO)/clips.png --video $(DEMO)/clips.mp4
	$(BIN)/python -m train.plot $(RUN) -o $(DEMO)/curves.svg --schedule $(DEMO)/schedule.png
	$(BIN)/tensorboard --inspect --logdir $(RUN)
	$(BIN)/python -m train.evaluate $(BEST) --dataset $(DEMO)/shapes --crops 1 --output $(DEMO)/evaluation
	$(BIN)/python -m train.export $(BEST) -o $(DEMO)/model.safetensors
	$(BIN)/python -m train.export $(BEST) -o $(DEMO)/model.pt2
	$(BIN)/python -m train.export $(BEST) -o $(DEMO)/model.onnx
	$(BIN)/python -m data.synthetic $(DEMO)/unseen --videos-per-class 1 --height 192 --seed 2
	$(BIN)/python -m train.predict $(BEST) $(DEMO)/unseen --top 3 --stride 4 --json $(DEMO)/predictions.json \
	    --overlay $(DEMO)/overlay --gradcam $(DEMO)/gradcam --features $(DEMO)/features.npz
	$(BIN)/python tools/docs/filmstrip.py $(CLASSES:%=$(DEMO)/gradcam/%_00000.mp4) -o $(DEMO)/gradcam.jpg

test: setup
	$(BIN)/python -m pytest -n auto --dist worksteal

soak: setup
	$(BIN)/python -m tests.train.crash_recovery --kills $(KILLS)
	$(BIN)/python -m tests.data.crash_recovery --kills $(KILLS)
	$(BIN)/python -m tests.fault_injection --faults $(FAULTS)
	$(BIN)/python -m tests.fault_injection --leak-minutes $(LEAK_MINUTES)
	$(BIN)/python -m tests.fuzz --inputs $(FUZZ_INPUTS)
	$(BIN)/python -m pytest -m slow

gpu:
	$(PYTHON) -m tests.gpu -o gpu_results

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/python -m data.benchmark
	$(BIN)/python -m network.benchmark --network r3d_18 srtg_r3d_18 r3d_34 srtg_r3d_34 --size 112

results: setup $(WORK)/weizmann/labels $(WORK)/scfd/labels $(WORK)/motions/labels
	$(BIN)/python -m tools.results $(WORK)

$(WORK)/weizmann/labels:
	$(BIN)/python -m data.convert $(REAL)/weizmann $(WORK)/weizmann --short-side 144
	$(BIN)/python -m data.labels folders $(WORK)/weizmann --folds groups --groups $(REAL)/weizmann/groups.csv

$(WORK)/scfd/labels:
	$(BIN)/python -m data.convert $(REAL)/scfd $(WORK)/scfd --short-side 128
	$(BIN)/python -m data.labels folders $(WORK)/scfd --folds 5 --groups $(REAL)/scfd/groups.csv --train-only unlisted

$(WORK)/motions/labels:
	$(BIN)/python -m data.synthetic $(WORK)/motion_videos --videos-per-class 100
	$(BIN)/python -m data.convert $(WORK)/motion_videos $(WORK)/motions --short-side 72
	$(BIN)/python -m data.labels folders $(WORK)/motions
