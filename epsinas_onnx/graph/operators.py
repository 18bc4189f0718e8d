"""Says what each operator's operands are: weights, biases, statistics, embeddings, parts of packed ones, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import onnx_ir as ir


class Role(StrEnum):
    """What a stored tensor is at one place of use (docs/roles.md)."""

    WEIGHT = "weight"
    """Becomes the constant c."""
    BIAS = "bias"
    """Becomes 0."""
    STATISTICS = "statistics"
    """Running mean or variance: replaced by the minibatch's own, or reset."""
    EMBEDDING = "embedding"
    """Becomes a seeded table drawn from U(0, 1)."""
    CONSTANT = "constant"
    """Stays what it is."""


class Part(StrEnum):
    """What a stored tensor is of a weight, bias or embedding that is kept in a quantised form."""

    PACKED = "packed"
    """The quantised entries, several of them in a byte or not."""
    SCALE = "scale"
    """What they are multiplied by."""
    ZERO = "zero"
    """What is subtracted from them."""


@dataclass(frozen=True)
class Operand:
    """An operand. name: the schema's. of: the slot of the packed operand that a scale or zero point belongs to."""

    name: str
    what: Role | Part | None = None
    of: int | None = None


@dataclass(frozen=True)
class Operator:
    """What is known of an operator. repeats: whether its last operand stands for any number of them."""

    operands: tuple[Operand, ...]
    repeats: bool = False

    def operand(self, slot: int) -> Operand | None:
        """Return the operand in a slot, None where nobody has said what it is."""
        if slot < len(self.operands):
            return self.operands[slot]
        return self.operands[-1] if self.repeats else None


# One line an operator that has a learned operand, or that might get one: `name: operand operand=what ...`, `scale(B)`
# for the scale of the packed operand B, and `...` where the last operand repeats.
_STANDARD = """
Attention: Q K V attn_mask past_key past_value nonpad_kv_seqlen
BatchNormalization: X scale=weight B=bias input_mean=statistics input_var=statistics
CausalConvWithState: input weight=weight bias=bias past_state
Conv: X W=weight B=bias
ConvInteger: x w=packed x_zero_point w_zero_point=zero(w)
ConvTranspose: X W=weight B=bias
DeformConv: X W=weight offset B=bias mask
DequantizeLinear: x x_scale=scale(x) x_zero_point=zero(x)
Einsum: Inputs=weight ...
GRU: X W=weight R=weight B=bias sequence_lens initial_h
Gemm: A=weight B=weight C=bias
GroupNormalization: X scale=weight bias=bias
InstanceNormalization: input scale=weight B=bias
LSTM: X W=weight R=weight B=bias sequence_lens initial_h initial_c P=weight
LayerNormalization: X Scale=weight B=bias
LinearAttention: query key value past_state decay beta
MatMul: A=weight B=weight
MatMulInteger: A=packed B=packed a_zero_point=zero(A) b_zero_point=zero(B)
PRelu: X slope=weight
QLinearConv: x x_scale x_zero_point w=packed w_scale=scale(w) w_zero_point=zero(w) y_scale y_zero_point B=bias
QLinearConvTranspose: x x_scale x_zero_point w=packed w_scale=scale(w) w_zero_point=zero(w) y_scale y_zero_point B=bias
QLinearMatMul: a=packed a_scale=scale(a) a_zero_point=zero(a) b=packed b_scale=scale(b) b_zero_point=zero(b) y_scale \
 y_zero_point
QuantizeLinear: x y_scale y_zero_point
RMSNormalization: X scale=weight
RNN: X W=weight R=weight B=bias sequence_lens initial_h
RotaryEmbedding: X cos_cache sin_cache position_ids
SimplifiedLayerNormalization: X scale=weight
SwiGLU: A B
TensorScatter: past_cache update write_indices
"""

# Operators that compute without learning, whatever their operands are. Add, Sub, Mul and Gather are among them because
# what stands around them decides (see roles.py); cosines and sines of positions, filters, anchors and masks are none.
_STANDARD_NONE = """
Abs Acos Acosh Add Affine AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool Bernoulli BitCast BitShift
BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike Ceil Celu CenterCropPad Clip Col2Im Compress
Concat ConcatFromSequence Constant ConstantOfShape Cos Cosh Crop CumProd CumSum DFT DepthToSpace Det
DisentangledAttention_TRT Div Dropout DynamicQuantizeLinear DynamicSlice EfficientNMS_TRT Elu Equal Erf Exp Expand
EyeLike Flatten Floor GRUUnit Gather GatherElements GatherND Gelu GivenTensorFill GlobalAveragePool GlobalLpPool
GlobalMaxPool Greater GreaterOrEqual GridSample HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity If
ImageDecoder ImageScaler IsInf IsNaN LRN LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization LpPool Max
MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization MelWeightMatrix MemcpyFromHost MemcpyToHost Min Mish Mod
Mul Multinomial MultilevelCropAndResize_TRT Neg NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not OneHot Optional
OptionalGetElement OptionalHasElement Or Pad ParametricSoftplus Pow PyramidROIAlign_TRT RandomNormal
RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare RegexFullMatch Relu Reshape Resize ReverseSequence
RoiAlign Round STFT Scale ScaledTanh Scan Scatter ScatterElements ScatterND Selu SequenceAt SequenceConstruct
SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap Shape Shrink Sigmoid Sign Sin Sinh Size Slice
Softmax SoftmaxCrossEntropyLoss Softplus Softsign SpaceToDepth Split SplitToSequence Sqrt Squeeze StringConcat
StringNormalizer StringSplit Sub Sum Swish Tan Tanh TfIdfVectorizer ThresholdedRelu Tile TopK Transpose Trilu Unique
Unsqueeze Upsample Where Xor
"""

_CLASSICAL_NONE = """
ArrayFeatureExtractor Binarizer CastMap CategoryMapper DictVectorizer FeatureVectorizer Imputer LabelEncoder
LinearClassifier LinearRegressor Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble
TreeEnsembleClassifier TreeEnsembleRegressor ZipMap
"""

_PREVIEW = """
FlexAttention: Q K V
"""

# What an optimiser changes, and what it remembers about it.
_TRAINING = """
Adagrad: R T inputs=weight ...
Adam: R T inputs=weight ...
Gradient: Inputs=weight ...
Momentum: R T inputs=weight ...
"""

_MICROSOFT = """
Attention: input weights=weight bias=bias mask_index past attention_bias past_sequence_length
AttnLSTM: X W=weight R=weight B=bias sequence_lens initial_h initial_c P=weight QW=weight MW=weight V=weight M \
 memory_seq_lens AW=weight
BiasAdd: X bias=bias skip
BiasDropout: data bias=bias residual ratio training_mode
BiasGelu: A B=bias
BiasSoftmax: data bias
BiasSplitGelu: X bias=bias
BitmaskBiasDropout: data bias=bias residual ratio training_mode
BranchwiseRMSNorm: X scale=weight
CausalConvWithState: input weight=weight bias=bias past_state
ConvTransposeWithDynamicPads: X W=weight Pads B=bias
DecoderAttention: query key q_weight=weight kv_weight=weight bias=bias key_padding_mask key_cache value_cache \
 static_kv use_past has_layer_state has_key_padding_mask
DecoderMaskedMultiHeadAttention: query key value mask_index attention_bias past_key past_value past_sequence_length \
 beam_width cache_indirection bias=bias
DecoderMaskedSelfAttention: input weights=weight bias=bias mask_index past attention_bias past_sequence_length \
 beam_width cache_indirection
DequantizeBFP: x=packed shape strides
DequantizeLinear: x x_scale=scale(x) x_zero_point=zero(x)
DequantizeWithOrder: input=packed scale_input=scale(input)
DynamicQuantizeLSTM: X W=packed R=packed B=bias sequence_lens initial_h initial_c P=weight W_scale=scale(W) \
 W_zero_point=zero(W) R_scale=scale(R) R_zero_point=zero(R)
DynamicQuantizeMatMul: A B=packed b_scale=scale(B) b_zero_point=zero(B) bias=bias
DynamicSparseAttention: query key value past_key past_value auxiliary_key auxiliary_value selected_indices \
 selected_counts seqlens_k total_sequence_length cos_cache sin_cache position_ids q_norm_weight=weight \
 k_norm_weight=weight head_sink=bias committed_length key_scale value_scale
EmbedLayerNormalization: input_ids segment_ids word_embedding=embedding position_embedding=embedding \
 segment_embedding=embedding gamma=weight beta=bias mask position_ids
EngramGate: key query value key_norm_scale=weight query_norm_scale=weight conv_norm_scale=weight
FastGelu: X bias=bias
FusedConv: X W=weight B=bias Z
FusedGemm: A=weight B=weight C=bias
FusedMatMul: A=weight B=weight
FusedMatMulActivation: A=weight B=weight
GatedAdd: X Y gate gate_weight=weight
GatedDeltaNet: query key value cu_seqlens decay beta initial_state a_log=weight dt_bias=bias capture_count \
 state_update_active
GatedRMSNorm: X scale=weight gate
GatedRelativePositionBias: query_layer query_bias=bias rel_pos weight=weight bias=bias eco_a=weight token_offset
GatherBlockQuantized: data=packed indices scales=scale(data) zero_points=zero(data)
GatherPacked: data=packed indices
GemmFastGelu: X W=weight bias=bias
GemmFloat8: A=packed B=packed C=bias scaleA=scale(A) scaleB=scale(B) scaleY
GroupNorm: X gamma=weight beta=bias
GroupQueryAttention: query key value past_key past_value seqlens_k total_sequence_length cos_cache sin_cache \
 position_ids attention_bias head_sink=bias k_scale v_scale q_norm_weight=weight k_norm_weight=weight query_seqlens
HyperConnectionLowRankMix: streams norm_scale=weight down_weight=weight up_weight=weight inject_weight=weight \
 prev_block_output prev_post_gate
HyperConnectionPostMix: streams block_output post_mix stream_mix
HyperConnectionPreMix: streams pre_mix
LayerNormalization: X Scale=weight B=bias
LinearAttention: query key value past_state decay beta
LinearAttentionGate: a dt_bias=bias decay_scale=weight b
LongformerAttention: input weight=weight bias=bias mask global_weight=weight global_bias=bias global
MRotaryEmbedding: input position_ids cos_cache sin_cache
Mamba2Verify: projection conv_state ssm_state conv_weight=weight conv_bias=bias dt_bias=bias A_negative=weight \
 D=weight norm_weight=weight state_row
MatMulBlockQuantizedFp4Weight: A B=packed weight_scale=scale(B) weight_scale_2=scale(B) input_scale bias=bias
MatMulBlockQuantizedFp8Weight: A B=packed b_scale=scale(B) a_scale bias=bias
MatMulBnb4: A B=packed absmax=scale(B)
MatMulFpQ4: A B=packed B_shape
MatMulInteger16: A=packed B=packed
MatMulIntegerToFloat: A=packed B=packed a_scale=scale(A) b_scale=scale(B) a_zero_point=zero(A) b_zero_point=zero(B) \
 bias=bias
MatMulNBits: A B=packed scales=scale(B) zero_points=zero(B) g_idx bias=bias
MatMulNBitsMlp: A skip norm_scale=weight gate_B=packed gate_scales=scale(gate_B) gate_bias=bias up_B=packed \
 up_scales=scale(up_B) up_bias=bias
MatMulNBitsQLoRA: X W=packed scales=scale(W) lora_A=packed lora_A_scales=scale(lora_A) lora_B=packed \
 lora_B_scales=scale(lora_B)
MatMulNBitsQkv: A skip norm_scale=weight q_B=packed q_scales=scale(q_B) q_bias=bias k_B=packed k_scales=scale(k_B) \
 k_bias=bias v_B=packed v_scales=scale(v_B) v_bias=bias
MatMulPacked: A B=packed global_scale=scale(B)
MoE: input router_probs fc1_experts_weights=weight fc1_experts_bias=bias fc2_experts_weights=weight \
 fc2_experts_bias=bias fc3_experts_weights=weight fc3_experts_bias=bias
MoEGroupRouter: logits expert_bias=bias projection_weight=weight
MoEPacked: input router_probs gate_experts_weights=packed up_experts_weights=packed down_experts_weights=packed \
 router_weights
MultiHeadAttention: query key value bias=bias key_padding_mask attention_bias past_key past_value \
 past_sequence_length cache_indirection
NhwcConv: X W=weight B=bias
NhwcFusedConv: X W=weight B=bias Z
PackedAttention: input weights=weight bias=bias token_offset cumulative_sequence_length attention_bias
PackedMultiHeadAttention: query key value bias=bias token_offset cumulative_sequence_length attention_bias
PackedSparseAttentionIndexer: query key query_norm_weight=weight key_norm_weight=weight cos_cache sin_cache \
 cumulative_sequence_lengths past_sequence_lengths gate position_bias=bias head_weights position_ids past_key_state \
 past_kv_buffer past_gate_buffer past_state_lengths state_update_capture_count state_update_active indexshare_mode \
 merged_indices merged_counts merged_status
PagedAttention: query key value key_cache value_cache cumulative_sequence_length past_seqlens block_table cos_cache \
 sin_cache slot_mapping head_sink=bias q_norm_weight=weight k_norm_weight=weight k_scale v_scale attention_metadata
QAttention: input weight=packed bias=bias input_scale weight_scale=scale(weight) mask_index input_zero_point \
 weight_zero_point=zero(weight) past
QEmbedLayerNormalization: input_ids segment_ids word_embedding_quant=packed position_embedding_quant=packed \
 segment_embedding=packed gamma_quant=packed beta_quant=packed mask \
 word_embedding_scale=scale(word_embedding_quant) position_embedding_scale=scale(position_embedding_quant) \
 segment_embedding_scale=scale(segment_embedding) gamma_scale=scale(gamma_quant) beta_scale=scale(beta_quant) \
 word_embedding_zero_point=zero(word_embedding_quant) position_embedding_zero_point=zero(position_embedding_quant) \
 segment_embedding_zero_point=zero(segment_embedding) gamma_zero_point=zero(gamma_quant) \
 beta_zero_point=zero(beta_quant)
QGemm: A=packed a_scale=scale(A) a_zero_point=zero(A) B=packed b_scale=scale(B) b_zero_point=zero(B) C=bias y_scale \
 y_zero_point
QLinearAdd: A A_scale A_zero_point B B_scale B_zero_point C_scale C_zero_point
QLinearAveragePool: X x_scale x_zero_point y_scale y_zero_point
QLinearConcat: Y_scale Y_zero_point inputs ...
QLinearConv: x x_scale x_zero_point w=packed w_scale=scale(w) w_zero_point=zero(w) y_scale y_zero_point B=bias
QLinearGlobalAveragePool: X x_scale x_zero_point y_scale y_zero_point
QLinearLeakyRelu: X X_scale X_zero_point Y_scale Y_zero_point
QLinearMul: A A_scale A_zero_point B B_scale B_zero_point C_scale C_zero_point
QLinearSigmoid: X X_scale X_zero_point Y_scale Y_zero_point
QLinearSoftmax: X X_scale x_zero_point y_scale y_zero_point
QMoE: input router_probs fc1_experts_weights=packed fc1_scales=scale(fc1_experts_weights) fc1_experts_bias=bias \
 fc2_experts_weights=packed fc2_scales=scale(fc2_experts_weights) fc2_experts_bias=bias fc3_experts_weights=packed \
 fc3_scales=scale(fc3_experts_weights) fc3_experts_bias=bias fc1_zero_points=zero(fc1_experts_weights) \
 fc2_zero_points=zero(fc2_experts_weights) fc3_zero_points=zero(fc3_experts_weights) router_weights \
 fc1_global_scale=scale(fc1_experts_weights) fc2_global_scale=scale(fc2_experts_weights) fc1_act_scale fc2_act_scale \
 fc1_act_block_scale fc2_act_block_scale
QOrderedAttention: input scale_input scale_Q_gemm scale_K_gemm scale_V_gemm Q_weight=packed K_weight=packed \
 V_weight=packed scale_Q_weight=scale(Q_weight) scale_K_weight=scale(K_weight) scale_V_weight=scale(V_weight) \
 Q_bias=bias K_bias=bias V_bias=bias scale_QKT_gemm scale_QKT_softmax scale_values_gemm mask_index past attention_bias
QOrderedLayerNormalization: X scale_X scale=weight B=bias scale_Y
QOrderedLongformerAttention: input scale_input weight=packed scale_weight=scale(weight) bias=bias scale_bias \
 scale_qkv_gemm mask global_weight=packed scale_global_weight=scale(global_weight) global_bias=bias scale_global_gemm \
 global scale_output
QOrderedMatMul: A scale_A B=packed scale_B=scale(B) scale_Y bias=bias C scale_C
QuantizeLinear: x y_scale y_zero_point
RMSNormRotary: X scale=weight position_ids cosine sine prefill_numerics
RelativePositionBias: bias_table=embedding query_length key_length
RotaryEmbedding: input position_ids cos_cache sin_cache
RouterGateUpProj: X W=weight
SkipGroupNorm: X gamma=weight beta=bias skip bias=bias
SkipLayerNormalization: input skip gamma=weight beta=bias bias=bias
SkipSimplifiedLayerNormalization: input skip gamma=weight bias=bias
SparseAttention: query key value past_key past_value block_row_indices block_col_indices total_sequence_length \
 key_total_sequence_lengths cos_cache sin_cache
SparseAttentionIndexer: query key query_norm_weight=weight key_norm_weight=weight cos_cache sin_cache mask past_key \
 gate position_bias=bias head_weights position_ids past_sequence_length past_proj_buffer
SparsePagedAttention: query key value key_cache value_cache cumulative_sequence_length past_seqlens block_table \
 slot_mapping selected_indices selected_counts auxiliary_key auxiliary_value auxiliary_lengths cos_cache sin_cache \
 head_sink=bias q_norm_weight=weight k_norm_weight=weight k_scale v_scale attention_metadata
SparseToDenseMatMul: A=weight B=weight
TorchEmbedding: weight=embedding indices padding_idx scale_grad_by_freq
TransposeMatMul: A=weight B=weight
VarlenCausalConvWithState: input weight=weight cumulative_sequence_length bias=bias initial_state capture_count \
 kernel_delta previous_mask
WordConvEmbedding: Sequence W=weight B=bias C=embedding
"""

_MICROSOFT_NONE = """
BeamSearch BifurcationDetector BitmaskDropout CDist ComplexMul ComplexMulConj ConvStateReplay CropAndResize
DynamicTimeWarping ExpandDims GatedDeltaNetStateReplay GatherND Gelu GemmaRotaryEmbedding GreedySearch GridSample
Inverse Irfft IsAllFinite MaxpoolWithMask MulInteger MurmurHash3 NGramHashMapping NGramRepeatBlock NhwcMaxPool
PackedSparseAttentionIndexerMerge Pad QLinearReduceMean QLinearWhere QOrderedGelu QuantizeBFP
QuantizeWithOrder QuickGelu Range ReduceSumInteger RemovePadding RestorePadding Rfft SampleOp Sampling
ScaledSiLU SpeculativePrefixCommit SwiGLU Tokenizer Trilu UnfoldTensor Unique VarlenNGramHashMapping WhisperBeamSearch
"""

_BLOCKED = """
Conv: X W=weight B=bias Sum
"""

_BLOCKED_NONE = "AveragePool GlobalAveragePool GlobalMaxPool MaxPool ReorderInput ReorderOutput Upsample"

COMPILED = frozenset({("com.microsoft", "EPContext"), ("com.microsoft", "Snpe")})
"""Operators whose attributes hold a compiled network, so that nobody can say what is learned."""


def _read(domain: str, rows: str, none: str = "") -> Iterator[tuple[tuple[str, str], Operator]]:
    for row in rows.strip().splitlines():
        name, _, text = row.partition(":")
        words = text.split()
        repeats = words[-1] == "..."
        parts = [word.partition("=")[::2] for word in words if word != "..."]
        slots = {operand: slot for slot, (operand, _) in enumerate(parts)}
        yield (domain, name), Operator(tuple(_operand(operand, what, slots) for operand, what in parts), repeats)
    for name in none.split():
        yield (domain, name), Operator((Operand(""),), repeats=True)


def _operand(name: str, what: str, slots: Mapping[str, int]) -> Operand:
    kind, _, of = what.rstrip(")").partition("(")
    if of or kind in set(Part):
        return Operand(name, Part(kind), slots[of] if of else None)
    return Operand(name, Role(kind) if kind else None)


OPERATORS: dict[tuple[str, str], Operator] = {
    **dict(_read("", _STANDARD, _STANDARD_NONE)),
    **dict(_read("ai.onnx.ml", "", _CLASSICAL_NONE)),
    **dict(_read("ai.onnx.preview", _PREVIEW)),
    **dict(_read("ai.onnx.preview.training", _TRAINING)),
    **dict(_read("com.microsoft", _MICROSOFT, _MICROSOFT_NONE)),
    **dict(_read("com.microsoft.nchwc", _BLOCKED, _BLOCKED_NONE)),
    **dict(_read("com.ms.internal.nhwc", _STANDARD, f"{_STANDARD_NONE} QLinearAveragePool")),
}
"""By domain and operator; what is not here nobody has judged."""


def find_operand(node: ir.Node, slot: int) -> Operand | None:
    """Return what is known of an operand, None where nobody has judged the operator or this operand of it."""
    operator = OPERATORS.get((node.domain, node.op_type))
    return None if operator is None else operator.operand(slot)


def is_packed(node: ir.Node) -> bool:
    """Whether an operator takes weights in a quantised form."""
    operator = OPERATORS.get((node.domain, node.op_type))
    return operator is not None and any(operand.what is Part.PACKED for operand in operator.operands)


def takes_table(node: ir.Node) -> bool:
    """Whether an operator looks rows up in a table, so that it counts even where all it reads is stored."""
    operator = OPERATORS.get((node.domain, node.op_type))
    return operator is not None and any(operand.what is Role.EMBEDDING for operand in operator.operands)
