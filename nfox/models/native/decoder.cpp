// A forward over a token tree of a decoder of Llama's kind, on a CPU, in one call.
//
// Weights are bfloat16, or quantised (quantised.h); states and sums are float32, and what enters a
// product is rounded to bfloat16, as in the model itself. Every row of a product, and every query of
// the attention, is computed in the same order whatever stands beside it: so a token's logits are the
// same to the last bit in a plain step, in any tree, and in a prompt that is read in one go.

#include "attention.h"
#include "top.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <omp.h>
#include <thread>
#include <vector>

namespace {

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

// What a forward needs besides weights. A thread that runs forwards keeps it.
struct Workspace {
    std::vector<float> states, qkv, update;
    std::vector<Input> normed, queries, attended, gated;
    AttentionSpace attention;
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
        Attention attention(d, trees, rows, w.queries.data(), w.attended.data(), w.attention,
                            num_threads);
#pragma omp parallel num_threads(num_threads)
        {
            const int thread = omp_get_thread_num(), threads = omp_get_num_threads();
            embed(thread, threads);
            for (int i = 0; i < d.num_layers; i++) run_layer(i, attention, thread, threads);
            const Range range = share(batch.hidden ? rows : 0, thread, threads);
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

    void run_layer(int index, Attention& attention, int thread, int threads) {
        const Layer& layer = d.layers[index];
        enter(layer.attention, layer.qkv, thread, threads);
        const Operands inputs = operands_for(layer.qkv, w.normed.data(), rows, w.normed_integers);
        multiply(layer.qkv, inputs, thread, threads,
                 [&](int row, int output, Floats totals) {
                     store(&w.qkv[(size_t)row * layer.qkv.outputs + output], totals);
                 });
        w.barrier.wait(threads);
        place_heads(layer, index, thread, threads);
        if (!batch.hidden && index == d.num_layers - 1) return;  // keys and values are all
        w.barrier.wait(threads);
        attention.run(layer, index, thread, threads);
        w.barrier.wait(threads);
        add_product(layer.out, attention.result(layer), layer.attended,
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
// both as [most, count], and the hidden states of all that is read. Likeliest are the tokens of the largest
// logits, with noise [most, vocabulary] where there is some. It ends before a forward where the likeliest
// tokens so far are all right with less than the least chance, and where logits are no numbers. Returns how
// many forwards there were.
extern "C" int nfox_draft(const Decoder* decoder, const Sequence* chain, int most, int count,
                          int vocabulary, float least_chance, const float* noise, int32_t* tokens,
                          float* probabilities, uint16_t* hidden, int num_threads) {
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
        if (noise) add_noise(noise + (size_t)i * vocabulary, logits.data(), vocabulary);
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
