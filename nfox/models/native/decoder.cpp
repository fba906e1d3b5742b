// A forward over a token tree of a decoder of Llama's kind, on a CPU, in one call.
//
// Weights are bfloat16, or quantised (quantised.h); states and sums are float32, and what enters a
// product is rounded to bfloat16, as in the model itself. Every row of a product, and every query of
// the attention, is computed in the same order whatever stands beside it: so a token's logits are the
// same to the last bit in a plain step, in any tree, and in a prompt that is read in one go.

#include "decoder.h"
#include "product.h"
#include "top.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <omp.h>
#include <thread>
#include <vector>

namespace {

constexpr int LEAST_QUERIES = 6;  // that are shared out at once

// Where the threads of a forward wait for each other. They look for a moment, and then sleep: on a
// busy machine the thread that is waited for may need this very core, and would else get it only
// when the time slice ends. Yielding does not help, as what else runs then takes a slice of its own.
class Barrier {
  public:
    void wait(int threads) {
        if (threads == 1) return;
        const int turn = turns.load(std::memory_order_acquire);
        if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
            arrived.store(0, std::memory_order_relaxed);
            turns.fetch_add(1, std::memory_order_release);
#ifdef __cpp_lib_atomic_wait
            turns.notify_all();
#endif
            return;
        }
        for (int i = 0; i < MOST_LOOKS; i++)
            if (turns.load(std::memory_order_acquire) != turn) return;
#ifdef __cpp_lib_atomic_wait
        turns.wait(turn, std::memory_order_acquire);
#else
        while (turns.load(std::memory_order_acquire) == turn) std::this_thread::yield();
#endif
    }

  private:
    // About 30 microseconds, more than parts of a product differ in; waking a thread takes as long.
    static constexpr int MOST_LOOKS = 100000;
    std::atomic<int> arrived{0}, turns{0};
};

float inverse_size(const float* states, int width, float eps) {
    Floats squares{};
    for (int i = 0; i < width; i += LANES) {
        const Floats part = load<Floats>(states + i);
        squares = part * part + squares;
    }
    return 1.0f / std::sqrt(sum(squares) / width + eps);
}

// Writes the normed states, rounded to bfloat16; without a norm the states themselves.
template <class Number>
void normed(const Norm& norm, const float* states, int width, Number* result) {
    const float factor = norm.weight ? inverse_size(states, width, norm.eps) : 1.0f;
    for (int i = 0; i < width; i += LANES) {
        Floats part = load<Floats>(states + i);
        if (norm.weight) part = part * factor * load<Floats>(norm.weight + i);
        put(result + i, part);
    }
}

Floats activated(int activation, Floats x) {
    switch (activation) {
        case SILU: return x / (1.0f + exponential(-x));
        case GELU_TANH:
            return 0.5f * x * (1.0f + hyperbolic_tangent(0.79788456f * (x + 0.044715f * x * x * x)));
        case GELU:
            for (int lane = 0; lane < LANES; lane++)
                x[lane] = 0.5f * x[lane] * (1.0f + std::erf(x[lane] * 0.70710678f));
            return x;
        default: return larger(x, Floats{});
    }
}

// A sequence whose nodes are rows of a forward from `first` on.
struct Tree {
    const Sequence& sequence;
    int first;
    bool is_chain;
    std::vector<std::vector<int>> paths;  // from the root to every node, where it is no chain

    Tree(const Sequence& sequence, int first) : sequence(sequence), first(first), is_chain(true) {
        const int32_t* parents = sequence.parents;
        for (int node = 0; node < sequence.num_nodes; node++) is_chain &= parents[node] == node - 1;
        if (is_chain) return;
        paths.assign(sequence.num_nodes, {});
        for (int node = 0; node < sequence.num_nodes; node++) {
            if (parents[node] >= 0) paths[node] = paths[parents[node]];
            paths[node].push_back(node);
        }
    }

    int depth(int node) const { return is_chain ? node : (int)paths[node].size() - 1; }

    // The last row that a node of a chain attends to.
    int last_seen(int node) const {
        const int count = sequence.num_nodes;
        return node < count - sequence.num_joint ? node : count - 1;
    }
};

// What a forward needs besides weights. A thread that runs forwards keeps it.
struct Workspace {
    std::vector<float> states, qkv, update;
    std::vector<Input> normed, queries, attended, gated;
    Integers normed_integers, gated_integers;  // for weights that are quantised
    Barrier barrier;
};

class Forward {
  public:
    Forward(const Decoder& decoder, const Batch& batch, Workspace& space)
        : d(decoder), w(space), batch(batch), group(decoder.num_heads / decoder.num_key_heads),
          query_size(decoder.num_heads * decoder.head_dim),
          all_heads(decoder.num_heads + 2 * decoder.num_key_heads) {
        rows = 0;
        for (int i = 0; i < batch.num_sequences; i++) {
            trees.emplace_back(batch.sequences[i], rows);
            rows += batch.sequences[i].num_nodes;
            tree_of.resize(rows, i);
        }
        int widest = 0;
        for (int i = 0; i < d.num_layers; i++)
            widest = std::max(widest, d.layers[i].gate.outputs);
        w.states.resize((size_t)rows * d.hidden_size);
        w.update.resize((size_t)rows * d.hidden_size);
        w.normed.resize((size_t)rows * d.hidden_size);
        w.qkv.resize((size_t)rows * all_heads * d.head_dim);
        w.queries.resize((size_t)rows * query_size);
        w.attended.resize((size_t)rows * query_size);
        w.gated.resize((size_t)rows * widest);
        w.normed_integers.resize(d.hidden_size, rows);
        w.gated_integers.resize(widest, rows);
    }

    void run(int num_threads) {
#pragma omp parallel num_threads(num_threads)
        {
            const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
            embed(thread, threads);
            for (int i = 0; i < d.num_layers; i++) run_layer(i, thread, threads);
            const Range range = share(rows, thread, threads);
            for (int row = range.begin; row < range.end; row++) leave(row);
            w.barrier.wait(threads);
            const int first = batch.first_scored;
            if (batch.logits)
                write_product(d.unembedding,
                              operands_for(d.unembedding, normed_row(first), rows - first,
                                       w.normed_integers),
                              batch.logits, d.unembedding.outputs, thread, threads);
        }
    }

  private:
    const Decoder& d;
    Workspace& w;
    const Batch& batch;
    std::vector<Tree> trees;
    std::vector<int> tree_of;  // every row
    int rows;
    const int group, query_size, all_heads;

    float* state(int row) { return &w.states[(size_t)row * d.hidden_size]; }
    Input* normed_row(int row) { return &w.normed[(size_t)row * d.hidden_size]; }

    void embed(int thread, int threads) {
        const Range range = share(rows, thread, threads);
        for (int row = range.begin; row < range.end; row++) {
            const Tree& tree = trees[tree_of[row]];
            const size_t token = tree.sequence.tokens[row - tree.first];
            const uint16_t* weights = d.embedding + token * d.hidden_size;
            for (int i = 0; i < d.hidden_size; i += LANES)
                store(state(row) + i, widened(weights + i) * d.embedding_scale);
        }
        w.barrier.wait(threads);
    }

    void run_layer(int index, int thread, int threads) {
        const Layer& layer = d.layers[index];
        enter(layer.attention, layer.qkv, thread, threads);
        const Operands inputs = operands_for(layer.qkv, w.normed.data(), rows, w.normed_integers);
        multiply(layer.qkv, inputs, thread, threads,
                 [&](int row, int output, Floats totals) {
                     store(&w.qkv[(size_t)row * layer.qkv.outputs + output], totals);
                 });
        w.barrier.wait(threads);
        place_heads(layer, index, thread, threads);
        w.barrier.wait(threads);
        attend(layer, index, thread, threads);
        w.barrier.wait(threads);
        add_product(layer.out, operands_for(layer.out, w.attended.data(), rows), layer.attended,
                    layer.residual_scale, thread, threads);
        enter(layer.mlp, layer.gate, thread, threads);
        multiply_gated(layer, thread, threads);
        w.barrier.wait(threads);
        add_product(layer.down, operands_for(layer.down, w.gated.data(), rows, w.gated_integers),
                    layer.mlp_out, layer.residual_scale, thread, threads);
    }

    // Norms the states, which enter an attention or an MLP by a product.
    void enter(const Norm& norm, const Matrix& matrix, int thread, int threads) {
        const Range range = share(rows, thread, threads);
        for (int row = range.begin; row < range.end; row++) {
            normed(norm, state(row), d.hidden_size, normed_row(row));
            if (matrix.format != BFLOAT16)
                w.normed_integers.write(matrix, rows, row, normed_row(row));
        }
        w.barrier.wait(threads);
    }

    // Norms what leaves the last layer, and writes it as the hidden state and for the logits.
    void leave(int row) {
        uint16_t* hidden = batch.hidden + (size_t)row * d.hidden_size;
        normed(d.norm, state(row), d.hidden_size, hidden);
        const int first = batch.first_scored;
        if (!batch.logits || row < first) return;
        for (int i = 0; i < d.hidden_size; i += LANES) put(normed_row(row) + i, widened(hidden + i));
        if (d.unembedding.format != BFLOAT16)
            w.normed_integers.write(d.unembedding, rows - first, row - first, normed_row(row));
    }

    // Adds a product, normed and scaled, to the states.
    void add_product(const Matrix& matrix, const Operands& inputs, const Norm& norm, float scale,
                     int thread, int threads) {
        multiply(matrix, inputs, thread, threads, [&](int row, int output, Floats totals) {
            if (norm.weight) {
                store(&w.update[(size_t)row * d.hidden_size + output], totals);
            } else {
                float* place = state(row) + output;
                store(place, load<Floats>(place) + totals * scale);
            }
        });
        w.barrier.wait(threads);
        if (!norm.weight) return;
        const Range range = share(rows, thread, threads);
        for (int row = range.begin; row < range.end; row++) {
            const float* update = &w.update[(size_t)row * d.hidden_size];
            const float factor = inverse_size(update, d.hidden_size, norm.eps);
            for (int i = 0; i < d.hidden_size; i += LANES) {
                const Floats part = load<Floats>(update + i) * factor * load<Floats>(norm.weight + i);
                store(state(row) + i, load<Floats>(state(row) + i) + part * scale);
            }
        }
        w.barrier.wait(threads);
    }

    // Writes act(gate) * up. A thread computes the same outputs of both, in whole groups for `down`.
    void multiply_gated(const Layer& layer, int thread, int threads) {
        const bool is_quantised = layer.down.format != BFLOAT16;
        const int unit = is_quantised ? GROUP / LANES : 1;  // of blocks
        const Range units = share(blocks_of(layer.gate) / unit, thread, threads);
        const Range range{units.begin * unit, units.end * unit};
        const Operands inputs = operands_for(layer.gate, w.normed.data(), rows, w.normed_integers);
        std::vector<float> gates((size_t)rows * MOST_BLOCKS * LANES);
        for (int block = range.begin; block < range.end; block += MOST_BLOCKS) {
            const int count = std::min(MOST_BLOCKS, range.end - block), first = block * LANES;
            auto gate_of = [&](int row, int output) {
                return &gates[(size_t)row * MOST_BLOCKS * LANES + output - first];
            };
            products(layer.gate, block, count, inputs, weights_of(layer.up, block),
                     [&](int row, int output, Floats totals) {
                         store(gate_of(row, output), activated(d.activation, totals));
                     });
            products(layer.up, block, count, inputs,
                     weights_of(layer.gate, block + MOST_BLOCKS),
                     [&](int row, int output, Floats totals) {
                         totals = totals * load<Floats>(gate_of(row, output));
                         put(&w.gated[(size_t)row * layer.gate.outputs + output], totals);
                     });
        }
        if (!is_quantised) return;
        for (int row = 0; row < rows; row++)
            w.gated_integers.write(layer.down, rows, row,
                                   &w.gated[(size_t)row * layer.gate.outputs], units.begin, units.end);
    }

    // Norms and rotates queries and keys, and writes keys and values behind the past.
    void place_heads(const Layer& layer, int index, int thread, int threads) {
        const Range range = share(rows * all_heads, thread, threads);
        for (int unit = range.begin; unit < range.end; unit++) {
            const int row = unit / all_heads, head = unit % all_heads;
            const float* token = &w.qkv[(size_t)row * all_heads * d.head_dim];
            const float* given = token + (size_t)head * d.head_dim;
            const int key_head = head - d.num_heads, value_head = key_head - d.num_key_heads;
            const Tree& tree = trees[tree_of[row]];
            const Sequence& s = tree.sequence;
            const size_t place = s.past_length + row - tree.first;
            if (value_head >= 0) {
                place_head(given, s.values[index] + (value_head * s.capacity + place) * d.head_dim);
                continue;
            }
            float turned[1024];
            const bool is_query = key_head < 0;
            norm_head(is_query ? layer.query : layer.key,
                      is_query ? token : token + query_size,
                      is_query ? head : key_head, given, turned);
            if (layer.rotates) rotate(s, layer.kind, s.past_length + tree.depth(row - tree.first), turned);
            if (is_query) {
                const size_t to = ((size_t)(head / group) * rows + row) * group + head % group;
                place_head(turned, &w.queries[to * d.head_dim]);
            } else {
                place_head(turned, s.keys[index] + (key_head * s.capacity + place) * d.head_dim);
            }
        }
    }

    template <class Number>
    void place_head(const float* head, Number* place) {
        for (int i = 0; i < d.head_dim; i += LANES) put(place + i, load<Floats>(head + i));
    }

    // A norm is as wide as a head, or as all heads of a token.
    void norm_head(const Norm& norm, const float* heads, int head, const float* given,
                   float* result) {
        if (!norm.weight) {
            memcpy(result, given, d.head_dim * sizeof(float));
            return;
        }
        const bool is_joint = norm.width != d.head_dim;
        const float factor = inverse_size(is_joint ? heads : given, norm.width, norm.eps);
        const float* weight = norm.weight + (is_joint ? head * d.head_dim : 0);
        for (int i = 0; i < d.head_dim; i += LANES)
            store(result + i, load<Floats>(given + i) * factor * load<Floats>(weight + i));
    }

    void rotate(const Sequence& s, int kind, int position, float* head) {
        const int width = s.rotary_widths[kind], half = width / 2;
        const float* cosines = s.cosines[kind] + (size_t)position * width;
        const float* sines = s.sines[kind] + (size_t)position * width;
        for (int i = 0; i < half; i++) {
            const float first = head[i], second = head[i + half];
            head[i] = first * cosines[i] + second * sines[i];
            head[i + half] = second * cosines[i + half] + first * sines[i + half];
        }
    }

    // The queries of a sequence are shared out in pieces of one key head: as many at once as their
    // scores find room for in a core's cache.
    int pieces_of(const Tree& q, int threads) const {
        const int queries = q.sequence.num_nodes * group, length = q.sequence.past_length + q.sequence.num_nodes;
        int most = std::max(LEAST_QUERIES, std::min(48, (1 << 17) / (length + 1)));
        most = std::min(most, std::max(1, rows * group * d.num_key_heads / threads));
        const int pieces = (queries + most - 1) / most;
        // Rather some more pieces than a thread that waits for the last one.
        for (int more = pieces; more < pieces + threads && queries >= more * LEAST_QUERIES; more++)
            if (more * d.num_key_heads % threads == 0) return more;
        return pieces;
    }

    void attend(const Layer& layer, int index, int thread, int threads) {
        int units = 0;
        for (const Tree& q : trees) units += pieces_of(q, threads) * d.num_key_heads;
        const Range mine = share(units, thread, threads);
        int before = 0;
        for (const Tree& q : trees) {
            const int pieces = pieces_of(q, threads), count = pieces * d.num_key_heads;
            const Range range{std::max(mine.begin - before, 0), std::min(mine.end - before, count)};
            for (int unit = range.begin; unit < range.end; unit++)
                attend_piece(layer, index, q, unit / pieces,
                             share(q.sequence.num_nodes * group, unit % pieces, pieces));
            before += count;
        }
    }

    // What queries [begin, end) of one key head gather; query q is head q % group of node q / group.
    void attend_piece(const Layer& layer, int index, const Tree& q, int key_head, Range piece) {
        static thread_local std::vector<float> scores;
        static thread_local std::vector<uint32_t> columns;
        const Sequence& s = q.sequence;
        columns.resize((size_t)d.head_dim / 2 * LANES * MOST_BLOCKS);
        const int count = piece.end - piece.begin, window = s.windows[layer.kind];
        const int last_node = (piece.end - 1) / group, first_node = piece.begin / group;
        const int end = s.past_length + (q.is_chain ? q.last_seen(last_node) + 1 : s.num_nodes);
        const int row_size = (end + 2 * LANES) / LANES * LANES;
        const int first_position = s.past_length + (q.is_chain ? first_node : 0);
        const int begin = window ? std::max(0, first_position - window + 1) / LANES * LANES : 0;
        scores.resize((size_t)count * row_size);
        const size_t offset = (size_t)key_head * s.capacity * d.head_dim;
        const uint16_t* keys = s.keys[index] + offset;
        const uint16_t* values = s.values[index] + offset;
        const Input* queries =
            &w.queries[(((size_t)key_head * rows + q.first) * group + piece.begin) * d.head_dim];
        score(layer, keys, queries, begin, end, count, row_size, scores.data(), columns.data());
        std::vector<float> factors(count);
        for (int i = 0; i < count; i++) {
            const int node = (piece.begin + i) / group, position = s.past_length + q.depth(node);
            const int first = window ? std::max(0, position - window + 1) : 0;
            float* row = &scores[(size_t)i * row_size];
            if (!q.is_chain) order_by_path(q, row, node);
            const int last = q.is_chain ? s.past_length + q.last_seen(node) : position;
            factors[i] = 1.0f / soften(row, first, last + 1, begin, row_size);
        }
        gather(q, values, begin, piece, key_head, row_size, scores.data(), factors.data());
    }

    // The scores of all keys in [begin, end), LANES keys side by side. This, soften and gather are
    // functions of their own: in one GCC keeps too few numbers in registers, and takes half as long
    // again.
    [[gnu::noinline]] void score(const Layer& layer, const uint16_t* keys, const Input* queries,
                                 int begin, int end, int count, int row_size, float* scores,
                                 uint32_t* columns) {
        const int pairs = d.head_dim / 2;
        for (int key = begin; key < end; key += LANES * MOST_BLOCKS) {
            const int blocks = std::min(MOST_BLOCKS, (end - key + LANES - 1) / LANES);
            for (int b = 0; b < blocks; b++)
                turn(keys, key + b * LANES, end, columns + (size_t)b * pairs * LANES);
            panel(columns, (size_t)pairs * LANES, blocks, (const Factor*)queries, pairs, count, nullptr,
                  [&](int row, int b, Floats totals) {
                       totals = totals * layer.scale;
                       if (layer.cap) totals = layer.cap * hyperbolic_tangent(totals / layer.cap);
                       store(scores + (size_t)row * row_size + key + b * LANES, totals);
                   });
        }
    }

    // Writes LANES keys, whose pairs of numbers then stand side by side.
    void turn(const uint16_t* keys, int first, int end, uint32_t* columns) {
        const int pairs = d.head_dim / 2, count = std::min(LANES, end - first);
        const uint32_t* rows_of = (const uint32_t*)keys + (size_t)first * pairs;
        if (count == LANES && pairs % LANES == 0) {
            for (int pair = 0; pair < pairs; pair += LANES)
                transpose(rows_of + pair, pairs, columns + (size_t)pair * LANES);
            return;
        }
        memset(columns, 0, sizeof(uint32_t) * pairs * LANES);
        for (int key = 0; key < count; key++)
            for (int pair = 0; pair < pairs; pair++)
                columns[pair * LANES + key] = rows_of[(size_t)key * pairs + pair];
    }

    // Puts the scores of a node's path where they would stand if the path were all there is.
    void order_by_path(const Tree& q, float* scores, int node) {
        float* tree = scores + q.sequence.past_length;
        const std::vector<int>& path = q.paths[node];
        for (size_t i = 0; i < path.size(); i++) tree[i] = tree[path[i]];  // path[i] >= i
    }

    // Turns scores in [first, end) into weights and the others around them into 0; returns the sum
    // of the weights.
    [[gnu::noinline]] float soften(float* scores, int first, int end, int begin, int row_size) {
        const float least = -INFINITY;
        for (int i = begin; i < first; i++) scores[i] = least;
        for (int i = end; i < row_size; i++) scores[i] = least;
        Floats most = all(least), total{};
        for (int i = begin; i < end; i += LANES) most = larger(most, load<Floats>(scores + i));
        const float largest_score = largest(most);
        for (int i = begin; i < row_size; i += LANES) {
            const Floats weights = exponential(load<Floats>(scores + i) - largest_score);
            store(scores + i, weights);
            total = total + weights;
        }
        return sum(total);
    }

    // Sums values by their weights, key after key.
    [[gnu::noinline]] void gather(const Tree& q, const uint16_t* values, int begin, Range piece,
                                  int key_head, int row_size, const float* weights,
                                  const float* factors) {
        const int count = piece.end - piece.begin, tiles = (count + 3) / 4;
        for (int t = 0; t < tiles; t++) {
            const Range range = share(count, t, tiles);
            for (int first = 0; first < d.head_dim;) {
                auto run = [&](auto num_rows, auto num_blocks) {
                    gather_tile<decltype(num_rows)::value, decltype(num_blocks)::value>(
                        q, values, begin, piece, key_head, row_size, weights, factors, range.begin,
                        first);
                    first += decltype(num_blocks)::value * LANES;
                };
                auto by_rows = [&](auto num_blocks) {
                    switch (range.end - range.begin) {
                        case 1: return run(std::integral_constant<int, 1>(), num_blocks);
                        case 2: return run(std::integral_constant<int, 2>(), num_blocks);
                        case 3: return run(std::integral_constant<int, 3>(), num_blocks);
                        default: return run(std::integral_constant<int, 4>(), num_blocks);
                    }
                };
                constexpr int MANY = LANES < 16 ? 2 : 4;  // as many as find room in registers
                if (d.head_dim - first >= MANY * LANES) by_rows(std::integral_constant<int, MANY>());
                else by_rows(std::integral_constant<int, 1>());
            }
        }
    }

    template <int ROWS, int BLOCKS>
    void gather_tile(const Tree& q, const uint16_t* values, int begin, Range piece,
                     int key_head, int row_size,
                     const float* weights, const float* factors, int from, int first) {
        const Sequence& s = q.sequence;
        Floats totals[ROWS][BLOCKS] = {};
        const int last_node = (piece.begin + from + ROWS - 1) / group;
        const int end = s.past_length + (q.is_chain ? q.last_seen(last_node) + 1 : 0);
        weights += (size_t)from * row_size;
        for (int key = begin; key < end; key++)
            for (int b = 0; b < BLOCKS; b++) {
                const Floats value = widened(values + (size_t)key * d.head_dim + first + b * LANES);
                for (int r = 0; r < ROWS; r++)
                    totals[r][b] = value * weights[(size_t)r * row_size + key] + totals[r][b];
            }
        for (int r = 0; r < ROWS; r++) {
            const int query = piece.begin + from + r, node = query / group;
            if (!q.is_chain)
                for (int i = 0; i <= q.depth(node); i++)
                    for (int b = 0; b < BLOCKS; b++) {
                        const size_t key = s.past_length + q.paths[node][i];
                        const Floats value = widened(values + key * d.head_dim + first + b * LANES);
                        const float weight = weights[(size_t)r * row_size + s.past_length + i];
                        totals[r][b] = value * weight + totals[r][b];
                    }
            const size_t head = (size_t)key_head * group + query % group;
            Input* place = &w.attended[(size_t)(q.first + node) * query_size + head * d.head_dim + first];
            for (int b = 0; b < BLOCKS; b++)
                put(place + b * LANES, totals[r][b] * factors[from + r]);
        }
    }
};

}  // namespace

extern "C" int nfox_lanes() { return LANES; }

// Writes blocks of LANES rows [num_blocks][LANES][words] as [num_blocks][words][LANES].
extern "C" void nfox_pack(const uint32_t* rows, int num_blocks, int words, uint32_t* blocks,
                          int num_threads) {
    const size_t size = (size_t)words * LANES;
#pragma omp parallel for num_threads(num_threads)
    for (int block = 0; block < num_blocks; block++) {
        const uint32_t* from = rows + block * size;
        uint32_t* to = blocks + block * size;
        const int whole = words / LANES * LANES;
        for (int word = 0; word < whole; word += LANES)
            transpose(from + word, words, to + (size_t)word * LANES);
        for (int word = whole; word < words; word++)
            for (int row = 0; row < LANES; row++)
                to[(size_t)word * LANES + row] = from[(size_t)row * words + word];
    }
}

// Norms rows [num_rows, norm.width] of bfloat16 numbers.
extern "C" void nfox_norm(const Norm* norm, const uint16_t* rows, int num_rows, uint16_t* result) {
    std::vector<float> states(norm->width);
    for (int row = 0; row < num_rows; row++) {
        const size_t first = (size_t)row * norm->width;
        for (int i = 0; i < norm->width; i += LANES) store(&states[i], widened(rows + first + i));
        normed(*norm, states.data(), norm->width, result + first);
    }
}

extern "C" void nfox_forward(const Decoder* decoder, const Batch* batch, int num_threads) {
    static thread_local Workspace workspace;
    Forward(*decoder, *batch, workspace).run(num_threads);
}

// Reads a chain, and then its own likeliest token again and again, in `most` forwards at most. Of every
// forward the `count` likeliest of the first `vocabulary` tokens are written, and how likely each is,
// both as [most, count], and the hidden states of all that is read. It ends before a forward where the
// likeliest tokens so far are all right with less than the least chance, and where logits are no numbers.
// Returns how many forwards there were.
extern "C" int nfox_draft(const Decoder* decoder, const Sequence* chain, int most, int count, int vocabulary,
                          float least_chance, int32_t* tokens, float* probabilities, uint16_t* hidden,
                          int num_threads) {
    static thread_local Workspace workspace;
    static thread_local std::vector<float> logits;
    logits.resize(decoder->unembedding.outputs);
    const int32_t root = -1;
    Sequence sequence = *chain;
    float chance = 1.0f;
    for (int i = 0; i < most; i++, tokens += count, probabilities += count) {
        if (chance < least_chance) return i;
        const Batch batch{&sequence, 1, sequence.num_nodes - 1, hidden, logits.data()};
        Forward(*decoder, batch, workspace).run(num_threads);
        top_of_row(logits.data(), vocabulary, {tokens, probabilities, count, 0});
        if (!(probabilities[0] > 0)) return i;
        chance *= probabilities[0];
        hidden += (size_t)sequence.num_nodes * decoder->hidden_size;
        sequence.past_length += sequence.num_nodes;
        sequence.num_nodes = 1;
        sequence.tokens = tokens;
        sequence.parents = &root;
    }
    return most;
}

// Writes residual + act(x W^T + b) of rows x in bfloat16; no activation where it is below 0, and
// nothing is added where there is no residual.
extern "C" void nfox_linear(const Matrix* matrix, const uint16_t* rows, int num_rows, int activation,
                            const uint16_t* residual, uint16_t* result, int num_threads) {
    const int outputs = matrix->outputs;
    const Input* inputs = inputs_of(rows, (size_t)num_rows * matrix->inputs);
    // To wake another thread takes as long as a small product.
#pragma omp parallel num_threads(num_threads) if ((int64_t)outputs * matrix->inputs >= 1 << 18)
    multiply(*matrix, operands_for(*matrix, inputs, num_rows), omp_get_thread_num(), omp_get_num_threads(),
             [&](int row, int output, Floats totals) {
                 const size_t place = (size_t)row * outputs + output;
                 const size_t size = sizeof(uint16_t) * std::min(LANES, outputs - output);
                 uint16_t part[LANES] = {};
                 if (activation >= 0) totals = activated(activation, totals);
                 if (residual) {
                     memcpy(part, residual + place, size);
                     totals = totals + widened(part);
                 }
                 store(part, narrowed(totals));
                 memcpy(result + place, part, size);
             });
}

// Writes rows [num_rows, inputs] times a matrix as floats [num_rows, outputs], `stride` from row to row.
inline void multiply_into(const Matrix* matrix, const uint16_t* rows, int num_rows, float* result,
                          int stride, int num_threads) {
    const Input* inputs = inputs_of(rows, (size_t)num_rows * matrix->inputs);
#pragma omp parallel num_threads(num_threads) if ((int64_t)matrix->outputs * matrix->inputs >= 1 << 18)
    write_product(*matrix, operands_for(*matrix, inputs, num_rows), result, stride, omp_get_thread_num(),
                  omp_get_num_threads());
}

extern "C" void nfox_multiply(const Matrix* matrix, const uint16_t* rows, int num_rows, float* result,
                              int num_threads) {
    multiply_into(matrix, rows, num_rows, result, matrix->outputs, num_threads);
}

#include "program.h"
