#!/usr/bin/env python3
"""Compares linfa-isolation with scikit-learn and isotree in one run, on one core, and prints ratios.

usage: pip install numpy pandas scikit-learn isotree; benches/compare.py [--quick] [--seeds N] [--trees N]

Speed: 100,000 rows of 8 columns, 100 trees of 256 rows, processor time (so that what else runs counts little), the best of several rounds.
Quality: ROC AUC on labelled sets that scikit-learn ships or that are made here. First forests of 5,000 trees in either library, the mean of
ten seeds: with so many trees ten seeds are enough to see a difference of .005. Then forests of 100 trees, the mean of N seeds (200): on the
small sets one such forest differs from the next by .02 to .04, and the means of ten by .01 from chance alone, so the standard error
stands beside it. --trees N runs forests of N trees and ten seeds only.
Streams: the streaming detector against a plain EWMA z-score, on streams that are made here.
"""
import json, os, subprocess, sys, tempfile, time

for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS', 'RAYON_NUM_THREADS'):
    os.environ[name] = '1'
import numpy as np
from isotree import IsolationForest as IsoTree
from sklearn.datasets import load_breast_cancer, load_digits, load_wine, make_blobs
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

HERE = os.path.dirname(os.path.abspath(__file__))
QUICK = '--quick' in sys.argv
SEEDS = 3 if QUICK else 10


def option(name, default):
    return int(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else default


QUALITY_SEEDS, TREES = option('--seeds', 3 if QUICK else 200), option('--trees', 0)


def build():
    command = ['cargo', 'build', '--release', '--example', 'throughput', '--example', 'score', '--message-format=json', '-q']
    out = subprocess.run(command, cwd=os.path.join(HERE, '..'), check=True, capture_output=True, text=True).stdout
    made = [m['executable'] for m in map(json.loads, out.splitlines()) if m.get('executable')]
    return tuple(next(m for m in made if os.path.basename(m).startswith(name)) for name in ('throughput', 'score'))


def ours(binary, *arguments):
    return json.loads(subprocess.run([binary, *map(str, arguments)], check=True, capture_output=True, text=True).stdout)


def best(rounds, action):
    times = []
    for _ in range(rounds):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)


def speed(binary, folder):
    n, d = (20_000 if QUICK else 100_000), 8
    x = np.random.default_rng(0).normal(size=(n, d))
    path = os.path.join(folder, 'speed.f64')
    x.tofile(path)
    rust = ours(binary, 'fit', path, d, 0)
    sk = IsolationForest(n_estimators=100, max_samples=256, n_jobs=1, random_state=0)
    iso = IsoTree(ntrees=100, sample_size=256, ndim=1, nthreads=1, missing_action='fail', prob_pick_avg_gain=0, random_seed=0)
    sk_fit, sk_score = best(5, lambda: sk.fit(x)), best(3, lambda: sk.score_samples(x))
    iso_fit, iso_score = best(5, lambda: iso.fit(x)), best(3, lambda: iso.predict(x))
    print(f'speed, n = {n}, d = {d}, 100 trees of 256, one core')
    print(f'  fit    ours {1e3 * rust["fit"]:8.2f} ms   scikit-learn {1e3 * sk_fit:8.2f} ms ({sk_fit / rust["fit"]:.0f} times ours)'
          f'   isotree {1e3 * iso_fit:8.2f} ms ({iso_fit / rust["fit"]:.1f} times ours)')
    rate = lambda t: n / t / 1e3
    print(f'  score  ours {rate(rust["score"]):8.0f} k/s  scikit-learn {rate(sk_score):8.0f} k/s (ours {sk_score / rust["score"]:.1f} times)'
          f'   isotree {rate(iso_score):8.0f} k/s (ours {iso_score / rust["score"]:.1f} times)')
    for d in (1, 8):
        s = ours(binary, 'stream', d)
        print(f'  stream {d} value{"s" * (d > 1)} a row: {s["micros"]:.1f} us to score and learn, {s["bytes"] / 1024:.0f} KiB held')


def sets():
    r = np.random.default_rng(1)
    data = load_breast_cancer()
    yield 'breast cancer (malignant)', data.data, data.target == 0
    data = load_wine()
    yield 'wine (class 2)', data.data, data.target == 2
    data = load_digits()
    few = np.nonzero(data.target == 4)[0][10:]
    keep = np.setdiff1d(np.arange(len(data.target)), few)
    yield 'digits (ten fours)', data.data[keep], data.target[keep] == 4
    x, _ = make_blobs(2000, 6, centers=4, cluster_std=1.0, random_state=3)
    away = r.uniform(x.min(0) - 2, x.max(0) + 2, size=(60, 6))
    yield 'four blobs, uniform outliers', np.r_[x, away], np.r_[np.zeros(2000), np.ones(60)] > 0
    x = r.normal(size=(3000, 8))
    y = np.zeros(3000, bool)
    y[:90] = True
    x[np.arange(90), r.integers(0, 8, 90)] += r.choice([-1, 1], 90) * 5
    yield 'one of eight values off', x, y
    t = r.uniform(0, 2 * np.pi, 2000)
    ring = np.c_[np.cos(t), np.sin(t)] * 3 + r.normal(0, 0.2, (2000, 2))
    yield 'ring, outliers around', np.r_[ring, r.normal(0, 4, (80, 2))], np.r_[np.zeros(2000), np.ones(80)] > 0


def quality(binary, folder, trees, seeds):
    print(f'quality, ROC AUC, forests of {trees} trees, mean of {seeds} seeds +- standard deviation of a seed')
    worst = 0
    for name, x, y in sets():
        path, out = os.path.join(folder, 'x.f64'), os.path.join(folder, 'scores.f64')
        np.ascontiguousarray(x, dtype='<f8').tofile(path)
        theirs, mine = [], []
        for seed in range(seeds):
            theirs.append(roc_auc_score(y, -IsolationForest(n_estimators=trees, random_state=seed).fit(x).score_samples(x)))
            subprocess.run([binary, 'scores', path, str(x.shape[1]), str(seed), str(trees), out], check=True)
            mine.append(roc_auc_score(y, np.fromfile(out)))
        a, b = np.mean(mine), np.mean(theirs)
        worst = max(worst, abs(a - b))
        error = np.sqrt((np.var(mine) + np.var(theirs)) / seeds)
        print(f'  {name:30} ours {a:.4f} +- {np.std(mine):.4f}   scikit-learn {b:.4f} +- {np.std(theirs):.4f}'
              f'   difference {a - b:+.4f} +- {error:.4f}', flush=True)
    print(f'  largest difference {worst:.4f}')


def ewma_z(x, span=500):
    """The honesty line: the largest exponentially weighted z-score of a row, against the rows before it."""
    a, mean, var, out = 2 / (span + 1), x[0].copy(), np.zeros(x.shape[1]), []
    for row in x:
        e = row - mean
        out.append(np.max(np.abs(e) / np.sqrt(np.where(var > 0, var, np.inf))))
        mean += a * e
        var = (1 - a) * (var + a * e * e)
    return np.array(out)


def stream_sets(seed):
    r = np.random.default_rng(seed)
    n = 3000
    for name, low, high in (('two sensors, outliers far off', 10, 30), ('two sensors, outliers 3 to 6 sigma', 3, 6)):
        y = r.random(n) < .08
        second = np.where(y, r.choice([-1, 1], n) * r.uniform(low, high, n), r.normal(size=n))
        yield name, np.c_[r.normal(20, .5, n), .5 + .05 * second], y
    y = np.zeros(n, bool)
    y[r.choice(np.arange(600, n), 15, replace=False)] = True
    yield 'a season with 15 spikes', (np.sin(np.arange(n) * 2 * np.pi / 288) + r.normal(0, .1, n) + 2.5 * y)[:, None], y
    n = 1200
    y = (np.arange(n) >= 550) & (np.arange(n) < 950)
    drift = np.cumsum(r.normal(0, .02, (n, 2)), axis=0)
    x = r.normal(size=(n, 8))
    x[:, :2] = drift + .05 * x[:, :2]
    x[:, 2:4] += 1.2 * y[:, None] * r.choice([-1, 1], 2)
    yield 'a long faint fault in 2 of 8', x, y


def streams(binary):
    print(f'streams, mean of {SEEDS} seeds, the first 100 rows not counted; F1 of our alerts, and the best F1 a threshold could give')
    totals = {}
    for seed in range(SEEDS):
        for name, x, y in stream_sets(seed):
            rows = '\n'.join(','.join(map(repr, map(float, row))) for row in x) + '\n'
            out = subprocess.run([binary, '--alerts'], input=rows, capture_output=True, text=True, check=True).stdout
            value, alert = np.array([line.split(',') for line in out.splitlines()], float).T
            keep = np.arange(len(y)) >= 100
            f1 = lambda a: 2 * np.sum(a & y & keep) / max(1, np.sum(a & keep) + np.sum(y & keep))
            best = lambda s: max(f1(s >= t) for t in np.quantile(s, np.linspace(.5, .9999, 400)))
            z = ewma_z(x)
            auc = lambda s: roc_auc_score(y[keep], s[keep])
            totals.setdefault(name, []).append((f1(alert > 0), best(value), best(z), auc(value), auc(z)))
    for name, rows in totals.items():
        f, b, bz, a, az = np.mean(rows, axis=0)
        print(f'  {name:36} ours F1 {f:.3f} (best {b:.3f}), AUC {a:.3f}   EWMA z-score best F1 {bz:.3f}, AUC {az:.3f}')


if __name__ == '__main__':
    throughput, score = build()
    with tempfile.TemporaryDirectory() as scratch:
        if TREES:
            quality(throughput, scratch, TREES, 10)
            sys.exit()
        speed(throughput, scratch)
        quality(throughput, scratch, 500 if QUICK else 5000, 3 if QUICK else 10)
        quality(throughput, scratch, 100, QUALITY_SEEDS)
    streams(score)
