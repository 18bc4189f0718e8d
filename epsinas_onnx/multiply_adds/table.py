"""Owns what is counted of each operator: a formula, nothing by convention, nothing at all, or that it cannot be."""

from __future__ import annotations

from collections.abc import Mapping

from epsinas_onnx.multiply_adds import attention as att
from epsinas_onnx.multiply_adds import linear as lin
from epsinas_onnx.multiply_adds.call import Formula

_MS, _NHWC, _NCHWC, _ML = "com.microsoft", "com.ms.internal.nhwc", "com.microsoft.nchwc", "ai.onnx.ml"

COUNTED: Mapping[tuple[str, str], Formula] = {
    ("", "AffineGrid"): lin.affine_grid,
    ("", "Attention"): att.attention,
    ("", "CausalConvWithState"): lin.causal_convolution,
    ("", "Conv"): lin.convolution(),
    ("", "ConvInteger"): lin.convolution(),
    ("", "ConvTranspose"): lin.transposed_convolution(),
    ("", "DeformConv"): lin.convolution(),
    ("", "Einsum"): lin.contraction,
    ("", "GRU"): lin.recurrence,
    ("", "Gemm"): lin.general_product(),
    ("", "LSTM"): lin.recurrence,
    ("", "LinearAttention"): att.linear_attention,
    ("", "MatMul"): lin.matrix_product(),
    ("", "MatMulInteger"): lin.matrix_product(),
    ("", "QLinearConv"): lin.convolution(0, 3),
    ("", "QLinearMatMul"): lin.matrix_product(0, 3),
    ("", "RNN"): lin.recurrence,
    (_ML, "LinearClassifier"): lin.linear_model,
    (_ML, "LinearRegressor"): lin.linear_model,
    (_ML, "SVMClassifier"): lin.support_vectors,
    (_ML, "SVMRegressor"): lin.support_vectors,
    ("ai.onnx.preview", "FlexAttention"): att.attention,
    (_MS, "Attention"): att.self_attention(4),
    (_MS, "CDist"): lin.distances,
    (_MS, "CausalConvWithState"): lin.causal_convolution,
    (_MS, "ConvTransposeWithDynamicPads"): lin.transposed_convolution(),
    (_MS, "DecoderMaskedMultiHeadAttention"): att.decoder_heads,
    (_MS, "DecoderMaskedSelfAttention"): att.self_attention(4),
    (_MS, "DynamicQuantizeLSTM"): lin.recurrence,
    (_MS, "DynamicQuantizeMatMul"): lin.matrix_product(),
    (_MS, "EngramGate"): lin.every_entry,
    (_MS, "FusedConv"): lin.convolution(),
    (_MS, "FusedGemm"): lin.general_product(),
    (_MS, "FusedMatMul"): lin.matrix_product(),
    (_MS, "FusedMatMulActivation"): lin.matrix_product(),
    (_MS, "GatedDeltaNet"): att.gated_delta,
    (_MS, "GatedRelativePositionBias"): lin.gated_bias,
    (_MS, "GemmFastGelu"): lin.matrix_product(),
    (_MS, "GemmFloat8"): lin.general_product(),
    (_MS, "GroupQueryAttention"): att.grouped_queries,
    (_MS, "HyperConnectionLowRankMix"): lin.low_rank_mix,
    (_MS, "HyperConnectionPostMix"): lin.streams_mix,
    (_MS, "HyperConnectionPreMix"): lin.every_entry,
    (_MS, "LinearAttention"): att.linear_attention,
    (_MS, "MatMulBlockQuantizedFp4Weight"): lin.packed_rows,
    (_MS, "MatMulBlockQuantizedFp8Weight"): lin.packed_rows,
    (_MS, "MatMulBnb4"): lin.square,
    (_MS, "MatMulFpQ4"): lin.packed_blob,
    (_MS, "MatMulInteger16"): lin.matrix_product(),
    (_MS, "MatMulIntegerToFloat"): lin.matrix_product(),
    (_MS, "MatMulNBits"): lin.rows_times("N"),
    (_MS, "MatMulNBitsMlp"): lin.rows_times("N", "N"),
    (_MS, "MatMulNBitsQLoRA"): lin.adapted,
    (_MS, "MatMulNBitsQkv"): lin.rows_times("Nq", "Nkv", "Nkv"),
    (_MS, "MatMulPacked"): lin.rows_times("N"),
    (_MS, "MoE"): att.experts(),
    (_MS, "MoEGroupRouter"): lin.router,
    (_MS, "MoEPacked"): att.packed_experts,
    (_MS, "MultiHeadAttention"): att.multi_head,
    (_MS, "NhwcConv"): lin.convolution(last=True),
    (_MS, "NhwcFusedConv"): lin.convolution(last=True),
    (_MS, "PackedAttention"): att.packed_attention,
    (_MS, "PackedMultiHeadAttention"): att.packed_heads,
    (_MS, "QAttention"): att.self_attention(8),
    (_MS, "QGemm"): lin.general_product(0, 3),
    (_MS, "QLinearConv"): lin.convolution(0, 3),
    (_MS, "QMoE"): att.experts(bits=True),
    (_MS, "QOrderedAttention"): att.ordered_attention,
    (_MS, "QOrderedMatMul"): lin.matrix_product(0, 2),
    (_MS, "RouterGateUpProj"): lin.projected(),
    (_MS, "TransposeMatMul"): lin.matrix_product(),
    (_MS, "VarlenCausalConvWithState"): lin.causal_convolution,
    (_NCHWC, "Conv"): lin.convolution(),
    (_NHWC, "Conv"): lin.convolution(last=True),
    (_NHWC, "ConvTranspose"): lin.transposed_convolution(),
    (_NHWC, "QLinearConv"): lin.convolution(0, 3, last=True),
    (_NHWC, "QLinearConvTranspose"): lin.transposed_convolution(0, 3),
}
"""Operators of which every product is counted, by domain and name."""


def _names(*texts: str) -> frozenset[str]:
    return frozenset(name for text in texts for name in text.split())


_SKIPS = "how much it leaves out is known at run time only"
_FLAGS = "what it computes is known at run time only"
UNCOUNTABLE: Mapping[tuple[str, str], str] = {
    ("", "DisentangledAttention_TRT"): "it is an operator of TensorRT",
    ("", "GRUUnit"): "it is an operator that ONNX withdrew",
    (_MS, "AttnLSTM"): "no formula for it is known",
    (_MS, "DecoderAttention"): _FLAGS,
    (_MS, "DynamicSparseAttention"): _SKIPS,
    (_MS, "EPContext"): "it holds a compiled graph",
    (_MS, "GatedDeltaNetStateReplay"): _SKIPS,
    (_MS, "LongformerAttention"): _SKIPS,
    (_MS, "Mamba2Verify"): "no formula for it is known",
    (_MS, "PackedSparseAttentionIndexer"): _SKIPS,
    (_MS, "PagedAttention"): "how long its sequences are is known at run time only",
    (_MS, "QOrderedLongformerAttention"): _SKIPS,
    (_MS, "Snpe"): "it holds a compiled graph",
    (_MS, "SparseAttention"): _SKIPS,
    (_MS, "SparseAttentionIndexer"): _SKIPS,
    (_MS, "SparsePagedAttention"): _SKIPS,
    (_MS, "SparseToDenseMatMul"): _SKIPS,
    (_MS, "WordConvEmbedding"): "no formula for it is known",
}
"""Operators that add up products which cannot be counted, and why: the count of a model with one says so."""

LEFT_OUT: Mapping[str, frozenset[str]] = {
    "statistics: a few operations an entry, which the layers around them outweigh": _names(
        """BatchNormalization BranchwiseRMSNorm EmbedLayerNormalization GatedRMSNorm GroupNorm GroupNormalization
        InstanceNormalization LRN LayerNormalization LpNormalization MeanVarianceNormalization
        Normalizer QEmbedLayerNormalization QOrderedLayerNormalization RMSNormRotary RMSNormalization
        SimplifiedLayerNormalization SkipGroupNorm SkipLayerNormalization SkipSimplifiedLayerNormalization
        """
    ),
    "reductions and pooling: sums, not of products with a second operand": _names(
        """AveragePool CumProd CumSum GlobalAveragePool GlobalLpPool LogSoftmax LpPool Mean
        NegativeLogLikelihoodLoss QLinearAveragePool QLinearGlobalAveragePool QLinearReduceMean QLinearSoftmax
        ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMean ReduceProd ReduceSum ReduceSumInteger
        ReduceSumSquare Softmax SoftmaxCrossEntropyLoss"""
    ),
    "resampling: a few neighbours an entry": _names(
        """CropAndResize GridSample MaxRoiPool MultilevelCropAndResize_TRT PyramidROIAlign_TRT Resize RoiAlign
        Upsample"""
    ),
    "Fourier transforms: a fast one does without the products of the definition": _names("DFT Irfft Rfft STFT"),
    "eliminations: no product of tensors": _names("Det Inverse"),
    "training: not part of a forward pass": _names("Adagrad Adam Gradient Momentum"),
}
"""Operators that add and multiply over an axis and count as nothing, by the reason for that convention."""

HOLDING_GRAPHS = _names("BeamSearch GreedySearch If Loop Sampling Scan SequenceMap WhisperBeamSearch")
"""Operators that add up products in the graphs that they hold."""

NOTHING = _names(
    """Abs Acos Acosh Add Affine And ArgMax ArgMin ArrayFeatureExtractor Asin Asinh Atan Atanh Bernoulli BiasAdd
    BiasDropout BiasGelu BiasSoftmax BiasSplitGelu BifurcationDetector Binarizer BitCast BitShift BitmaskBiasDropout
    BitmaskDropout BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike CastMap CategoryMapper
    Ceil Celu CenterCropPad Clip Col2Im ComplexMul ComplexMulConj Compress Concat ConcatFromSequence Constant
    ConstantOfShape ConvStateReplay Cos Cosh Crop DepthToSpace DequantizeBFP DequantizeLinear DequantizeWithOrder
    DictVectorizer Div Dropout DynamicQuantizeLinear DynamicSlice DynamicTimeWarping EfficientNMS_TRT Elu Equal Erf
    Exp Expand ExpandDims EyeLike FastGelu FeatureVectorizer Flatten Floor Gather GatherBlockQuantized
    GatherElements GatherND GatherPacked GatedAdd Gelu GemmaRotaryEmbedding GivenTensorFill GlobalMaxPool Greater
    GreaterOrEqual HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity ImageDecoder ImageScaler Imputer
    IsAllFinite IsInf IsNaN LabelEncoder LeakyRelu Less LessOrEqual LinearAttentionGate Log MRotaryEmbedding Max
    MaxPool MaxUnpool MaxpoolWithMask MelWeightMatrix MemcpyFromHost MemcpyToHost Min Mish Mod Mul MulInteger
    Multinomial MurmurHash3 NGramHashMapping NGramRepeatBlock Neg NhwcMaxPool NonMaxSuppression NonZero Not OneHot
    OneHotEncoder Optional OptionalGetElement OptionalHasElement Or PRelu PackedSparseAttentionIndexerMerge Pad
    ParametricSoftplus Pow QLinearAdd QLinearConcat QLinearLeakyRelu QLinearMul QLinearSigmoid QLinearWhere
    QOrderedGelu QuantizeBFP QuantizeLinear QuantizeWithOrder QuickGelu RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Range Reciprocal ReduceMax ReduceMin RegexFullMatch RelativePositionBias Relu RemovePadding
    ReorderInput ReorderOutput Reshape RestorePadding ReverseSequence RotaryEmbedding Round SampleOp Scale
    ScaledSiLU ScaledTanh Scaler Scatter ScatterElements ScatterND Selu SequenceAt SequenceConstruct SequenceEmpty
    SequenceErase SequenceInsert SequenceLength Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softplus Softsign
    SpaceToDepth SpeculativePrefixCommit Split SplitToSequence Sqrt Squeeze StringConcat StringNormalizer
    StringSplit Sub Sum SwiGLU Swish Tan Tanh TensorScatter TfIdfVectorizer ThresholdedRelu Tile Tokenizer TopK
    TorchEmbedding Transpose TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor Trilu UnfoldTensor Unique
    Unsqueeze VarlenNGramHashMapping Where Xor ZipMap"""
)
"""Operators that add up no products."""

DOMAINS = frozenset({"", _ML, _MS, _NCHWC, _NHWC, "ai.onnx.preview", "ai.onnx.preview.training"})
"""The domains whose operators the table knows."""

_FREE = NOTHING.union(HOLDING_GRAPHS, *LEFT_OUT.values())


def takes_no_products(domain: str, op_type: str) -> bool:
    """Whether an operator is known to add up no products, or none that count."""
    return domain in DOMAINS and op_type in _FREE
