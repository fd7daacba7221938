"""Substitutes for names that only PyTorch has: a table of names and what to use instead.

A line is `names: substitute`. md is minidist, x a tensor, nn and optim are modules of minidist,
F is nn.functional, np is NumPy. A name without a line has no substitute, unless the same name
exists elsewhere (x.ravel for md.ravel), or without its "_" (x.copy_(x.acosh(…)) for acosh_).
"""

from __future__ import annotations

import functools

TABLE = {
    "minidist": """
        kron cov corrcoef bilinear cross: md.einsum
        inner: md.tensordot(a, b, dims=([-1], [-1]))
        vdot: md.dot
        ger addr: md.outer
        addmv: md.mv
        addbmm: md.baddbmm
        chain_matmul matrix_power: md.matmul
        trace: x.diagonal().sum()
        arccos: md.acos
        arccosh: md.acosh
        arcsin: md.asin
        arcsinh: md.asinh
        arctan: md.atan
        arctanh: md.atanh
        arctan2: md.atan2
        fix: md.trunc
        frac: x - x.trunc()
        fmod: x - md.div(x, y, rounding_mode="trunc") * y
        float_power: md.pow(x.double(), y)
        exp2: 2 ** x
        erfc: 1 - md.erf(x)
        deg2rad: x * (md.pi / 180)
        rad2deg: x * (180 / md.pi)
        logit: md.log(x / (1 - x))
        xlogy: md.where(x == 0, 0, x * md.log(y))
        hypot: md.sqrt(x * x + y * y)
        ldexp: x * 2 ** y
        rsub: y - x
        fmax: md.maximum(x, y), which keeps NaN
        fmin: md.minimum(x, y), which keeps NaN
        heaviside: md.where
        copysign: x.abs() * md.where(y < 0, -1, 1)
        signbit: x < 0
        sgn: md.sign
        positive: x itself
        isin: (x[..., None] == values).any(-1)
        isposinf: x == md.inf
        isneginf: x == -md.inf
        is_nonzero: bool(x)
        is_same_size: x.shape == y.shape
        is_signed: x.dtype.kind
        nansum: md.nan_to_num(x).sum()
        nanmean: x[~x.isnan()].mean()
        nanmedian: x[~x.isnan()].median()
        quantile nanquantile kthvalue msort: md.sort
        mode: md.unique(x, return_counts=True)
        unique_consecutive: md.unique
        aminmax: md.amin and md.amax
        histc histogram: md.bincount
        bucketize: (x[..., None] > boundaries).sum(-1)
        searchsorted: (y[..., None] > x).sum(-1)
        cdist: (x[:, None] - y).norm(dim=-1)
        dist: md.norm(x - y)
        diag_embed: md.eye(x.shape[-1]) * x[..., None]
        diagflat: md.diag(x.flatten())
        rot90 fliplr flipud: md.flip
        atleast_1d atleast_2d atleast_3d: x.reshape
        column_stack: md.stack(tensors, 1)
        dstack: md.stack(tensors, 2)
        row_stack: md.vstack
        hsplit vsplit dsplit tensor_split split_with_sizes: md.split
        unsafe_split unsafe_split_with_sizes: md.split
        unsafe_chunk: md.chunk
        broadcast_tensors broadcast_shapes: md.broadcast_to
        cartesian_prod: md.meshgrid
        adjoint: x.mT
        take: x.flatten()[index]
        put index_copy index_fill index_put masked_scatter: x[index] = y, on x.clone()
        select_scatter slice_scatter diagonal_scatter as_strided_scatter: x[index] = y, on x.clone()
        scatter_reduce index_reduce: md.scatter_add
        diff: x[..., 1:] - x[..., :-1]
        logspace: 10 ** md.linspace(start, end, steps)
        range: md.arange
        scalar_tensor: md.tensor
        asarray: md.as_tensor
        from_dlpack frombuffer: md.from_numpy
        empty_strided empty_permuted: md.empty
        randint_like: md.randint
        fill: md.full_like
        det inverse cholesky qr svd slogdet logdet pinverse: np.linalg on x.numpy()
        linalg: np.linalg on x.numpy()
        get_rng_state: md.random.get_state, or md.Generator
        set_rng_state: md.random.replayed, or md.Generator
        default_generator: md.Generator
        initial_seed seed: md.manual_seed
        save: safetensors.numpy.save_file(model.state_dict(), path)
        load: safetensors.numpy.load_file(path)
        FloatTensor: md.tensor(data, dtype=md.float32)
        DoubleTensor: md.tensor(data, dtype=md.float64)
        HalfTensor: md.tensor(data, dtype=md.float16)
        BFloat16Tensor: md.tensor(data, dtype=md.bfloat16)
        LongTensor: md.tensor(data, dtype=md.int64)
        IntTensor: md.tensor(data, dtype=md.int32)
        ShortTensor: md.tensor(data, dtype=md.int16)
        CharTensor: md.tensor(data, dtype=md.int8)
        ByteTensor: md.tensor(data, dtype=md.uint8)
        BoolTensor: md.tensor(data, dtype=md.bool_)
        short: md.int16
        newaxis: None
        GradScaler: minidist.amp.GradScaler
        distributed: minidist.comm
        utils: minidist.data and md.checkpoint
        get_device: x.device
        is_anomaly_enabled set_anomaly_enabled: md.autograd.detect_anomaly
        is_inference: x.is_inference()
        celu: F.elu
        alpha_dropout feature_alpha_dropout: F.dropout
        feature_dropout: F.dropout2d
        instance_norm: F.group_norm
        pixel_shuffle pixel_unshuffle channel_shuffle: x.reshape and x.permute
        cosine_embedding_loss: F.cosine_similarity
        margin_ranking_loss hinge_embedding_loss triplet_margin_loss: md.clamp
        pairwise_distance: md.norm(x - y, dim=-1)
        threshold: md.where
        lstm: nn.LSTM
        gru: nn.GRU
        rnn_tanh rnn_relu: nn.RNN
        lstm_cell: nn.LSTMCell
        gru_cell: nn.GRUCell
        rnn_tanh_cell rnn_relu_cell: nn.RNNCell
    """,
    "minidist.Tensor": """
        itemsize: x.element_size()
        is_cpu: not x.is_cuda
        ndimension: x.dim()
        data_ptr storage untyped_storage set_: x.data
        is_set_to: x.data is y.data
        apply_ map_ map2_: x.copy_ of what NumPy makes of x.numpy()
        new: x.new_tensor
        new_empty_strided: x.new_empty
        random_: x.copy_(md.randint(…))
        bernoulli_: x.copy_(md.bernoulli(…))
        exponential_ geometric_ cauchy_ log_normal_: x.uniform_
        fill_diagonal_: x.diagonal().fill_(value)
        index_put_ index_fill_ index_copy_ masked_scatter_ put_: x[index] = y
        index_reduce_ scatter_reduce_: x.scatter_add_
        squeeze_: x.squeeze
        unsqueeze_: x.unsqueeze
        t_: x.t
        transpose_ swapaxes_ swapdims_: x.transpose
        resize_ resize resize_as resize_as_: x.reshape
        sum_to_size: x.sum
        H mH: x.mT
        dim_order: x.stride()
        fmod_: x.copy_(x - md.div(x, y, rounding_mode="trunc") * y)
    """,
    "minidist.nn": """
        Bilinear: md.einsum
        Buffer: nn.Module.register_buffer
        CELU: nn.ELU
        ConstantPad1d ConstantPad2d ConstantPad3d ZeroPad1d ZeroPad2d ZeroPad3d: F.pad
        ReflectionPad1d ReflectionPad2d ReflectionPad3d: F.pad(x, pad, mode="reflect")
        ReplicationPad1d ReplicationPad2d ReplicationPad3d: F.pad(x, pad, mode="replicate")
        CircularPad1d CircularPad2d CircularPad3d: F.pad(x, pad, mode="circular")
        UpsamplingNearest2d UpsamplingBilinear2d: nn.Upsample
        Dropout1d: nn.Dropout2d of x.unsqueeze(3)
        Dropout3d: nn.Dropout2d of x.flatten(3)
        ConvTranspose1d: nn.ConvTranspose2d on an axis of size 1
        CosineEmbeddingLoss CosineSimilarity: F.cosine_similarity
        DataParallel: minidist.parallel.Bucketed(model, comm, average=True)
        SyncBatchNorm: minidist.parallel.data.SyncBatchNorm
        AlphaDropout FeatureAlphaDropout: nn.Dropout
        EmbeddingBag: nn.Embedding, and the sum or the mean of its rows
        Hardsigmoid: md.clamp(x / 6 + 0.5, 0, 1)
        HingeEmbeddingLoss MarginRankingLoss MultiMarginLoss TripletMarginLoss: md.clamp
        InstanceNorm1d InstanceNorm2d InstanceNorm3d: nn.GroupNorm with a group for each channel
        LazyLinear: nn.Linear
        LazyBatchNorm1d: nn.BatchNorm1d
        LazyBatchNorm2d: nn.BatchNorm2d
        LazyConv1d: nn.Conv1d
        LazyConv2d: nn.Conv2d
        LazyConvTranspose2d: nn.ConvTranspose2d
        LinearCrossEntropyLoss: F.linear_cross_entropy
        MultiLabelSoftMarginLoss: nn.BCEWithLogitsLoss
        NLLLoss2d: nn.NLLLoss
        PairwiseDistance: md.norm(x - y, dim=-1)
        PixelShuffle PixelUnshuffle ChannelShuffle: x.reshape and x.permute
        RNNBase: nn.RNN
        RNNCellBase: nn.RNNCell
        SoftMarginLoss: F.softplus(-y * x).mean()
        Softmax2d: nn.Softmax(dim=-3)
        Softmin: nn.Softmax of -x
        Softsign: x / (1 + x.abs())
        Tanhshrink: x - x.tanh()
        Threshold Hardshrink Softshrink: md.where
        UninitializedParameter: nn.Parameter
        modules: nn.Module
        parallel: minidist.parallel, its Bucketed(model, comm, average=True) for DDP
        parameter: nn.Parameter
    """,
    "minidist.nn.functional": """
        hardsigmoid: md.clamp(x / 6 + 0.5, 0, 1)
        softmin: F.softmax of -x
        softsign: x / (1 + x.abs())
        tanhshrink: x - x.tanh()
        hardshrink softshrink threshold: md.where
        embedding_bag: F.embedding, and the sum or the mean of its rows
        gumbel_softmax: F.softmax of x and noise
        soft_margin_loss: F.softplus(-y * x).mean()
        multilabel_soft_margin_loss: F.binary_cross_entropy_with_logits
        multi_margin_loss: md.clamp
        multi_head_attention_forward: nn.MultiheadAttention
        conv_transpose1d: F.conv_transpose2d on an axis of size 1
        upsample upsample_nearest upsample_bilinear: F.interpolate
        dropout1d: F.dropout2d of x.unsqueeze(3)
        dropout3d: F.dropout2d of x.flatten(3)
    """,
    "minidist.optim": """
        ASGD: optim.SGD
        Adadelta Rprop: optim.RMSprop
        Adafactor Adamax NAdam RAdam SparseAdam: optim.Adam
    """,
    "minidist.optim.lr_scheduler": """
        ChainedScheduler: optim.lr_scheduler.SequentialLR
        ConstantLR MultiplicativeLR PolynomialLR CyclicLR: optim.lr_scheduler.LambdaLR
        CosineAnnealingWarmRestarts: optim.lr_scheduler.LambdaLR
    """,
    "minidist.nn.init": """
        constant: nn.init.constant_
        eye: nn.init.eye_
        kaiming_normal: nn.init.kaiming_normal_
        kaiming_uniform: nn.init.kaiming_uniform_
        normal: nn.init.normal_
        orthogonal: nn.init.orthogonal_
        uniform: nn.init.uniform_
        xavier_normal: nn.init.xavier_normal_
        xavier_uniform: nn.init.xavier_uniform_
    """,
    "minidist.nn.utils": """
        clip_grad_norm: nn.utils.clip_grad_norm_
    """,
    "minidist.autograd": """
        Function: minidist.ops.op.differentiable
        Variable: md.tensor(data, requires_grad=True)
        gradcheck: minidist.testing.gradcheck
        graph: md.graph
        profiler: minidist.trace
    """,
    "minidist.tensor.cuda": """
        manual_seed manual_seed_all seed seed_all: md.manual_seed
        device: md.device
        current_stream default_stream stream set_stream: cupy.cuda.Stream
        get_device_name get_device_properties: cupy.cuda.runtime.getDeviceProperties
        get_device_capability: cupy.cuda.Device().compute_capability
        empty_cache: cupy.get_default_memory_pool().free_all_blocks()
        max_memory_allocated: md.cuda.memory_reserved()
    """,
}


@functools.cache
def substitutes(place: str) -> dict[str, str]:
    """The substitute for each name of a place."""
    lines = [line.partition(":") for line in TABLE[place].strip().splitlines()]
    return {name: right.strip() for names, _, right in lines for name in names.split()}
