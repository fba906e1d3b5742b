// What a forward computes with, and what it is about.
#pragma once

#include "matrix.h"

enum Activation { SILU, GELU_TANH, GELU, RELU };

struct Norm {
    const float* weight;  // [width]; null for no norm
    float eps;
    int32_t width;
};

struct Layer {
    Norm attention, attended, mlp, mlp_out, query, key;
    Matrix qkv, out, gate, up, down;
    float residual_scale, scale, cap;  // cap 0: none
    int32_t rotates, kind;
};

struct Decoder {
    const Layer* layers;
    int32_t num_layers, hidden_size, num_heads, num_key_heads, head_dim, activation;
    const uint16_t* embedding;  // [vocabulary, hidden_size]
    float embedding_scale;
    Norm norm;
    Matrix unembedding;
};

// A tree and what was read before it.
struct Sequence {
    int32_t num_nodes, past_length;
    int32_t num_joint;        // so many last nodes of a chain attend to each other
    const int32_t* tokens;    // [num_nodes]
    const int32_t* parents;   // [num_nodes]
    uint16_t* const* keys;    // of every layer [num_key_heads, capacity, head_dim]
    uint16_t* const* values;  // likewise
    int64_t capacity;
    const float* cosines[2];  // of every kind of layer [positions, rotary width]
    const float* sines[2];    // likewise; the first half is negated
    int32_t rotary_widths[2];
    int32_t windows[2];  // 0: none
};

// The sequences that go through one forward, whose nodes are its rows, and what is written of them.
struct Batch {
    const Sequence* sequences;
    int32_t num_sequences;
    int32_t first_scored;  // the row from which on logits are written
    uint16_t* hidden;      // [rows, hidden_size], written; null: keys and values are all, no logits
    float* logits;         // [rows from first_scored on, vocabulary], written; null: not needed
};
