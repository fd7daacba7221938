"""Public names of PyTorch 2.13 that minidist does not have, by module or class.

tests/support/names_of_pytorch.py writes this file, and defines which names are public.
tests/test_absent.py compares the list with the installed PyTorch.
"""

NAMES = {
    "minidist": """
        BFloat16Tensor BoolTensor ByteTensor CharTensor DoubleTensor Event FloatTensor GradScaler
        HalfTensor IntTensor LongTensor ShortTensor Storage Stream abs_ accelerator acos_ acosh_
        adaptive_avg_pool1d adaptive_max_pool1d addbmm addmv addmv_ addr adjoint
        affine_grid_generator alpha_dropout alpha_dropout_ aminmax angle ao arccos arccos_ arccosh
        arccosh_ arcsin arcsin_ arcsinh arcsinh_ arctan arctan2 arctan_ arctanh arctanh_
        are_deterministic_algorithms_enabled as_strided as_strided_ as_strided_scatter asarray asin_
        asinh_ atan_ atanh_ atleast_1d atleast_2d atleast_3d avg_pool1d backends bartlett_window
        batch_norm bilinear binary_cross_entropy_with_logits binomial bitwise_left_shift
        bitwise_right_shift blackman_window block_diag broadcast_shapes broadcast_tensors bucketize
        can_cast cartesian_prod cdist cdouble ceil_ celu celu_ cfloat chain_matmul chalf
        channel_shuffle channels_last channels_last_3d cholesky cholesky_inverse cholesky_solve
        clamp_ clamp_max_ clamp_min_ classes classproperty clip_ column_stack combinations compile
        compiler complex complex128 complex32 complex64 cond conj conj_physical conj_physical_
        constant_pad_nd contiguous_format conv1d conv2d conv3d conv_tbc conv_transpose1d
        conv_transpose2d conv_transpose3d convolution copysign corrcoef cos_ cosh_
        cosine_embedding_loss cosine_similarity cov cpp cpu cross ctc_loss cummax cummin
        cumulative_trapezoid default_generator deg2rad deg2rad_ dequantize det detach detach_
        diag_embed diagflat diagonal_scatter diff digamma dist distributed distributions dropout
        dropout_ dsplit dstack dtype eig embedding embedding_bag embedding_renorm_ empty_permuted
        empty_quantized empty_strided erf_ erfc erfc_ erfinv exp2 exp2_ exp_ expm1_ export
        feature_alpha_dropout feature_alpha_dropout_ feature_dropout feature_dropout_ fft fill fill_
        fix fix_ fliplr flipud float4_e2m1fn_x2 float8_e4m3fn float8_e4m3fnuz float8_e5m2
        float8_e5m2fnuz float8_e8m0fnu float_power floor_ fmax fmin fmod fork frac frac_ frexp
        frobenius_norm from_dlpack from_file frombuffer func functional futures fx gcd gcd_ geqrf
        ger get_default_device get_default_dtype get_deterministic_debug_mode get_device
        get_device_module get_file_path get_float32_matmul_precision get_num_interop_threads
        get_num_threads get_rng_state gradient grid_sampler grid_sampler_2d grid_sampler_3d
        group_norm gru gru_cell hamming_window hann_window hardshrink hash_tensor heaviside
        hinge_embedding_loss histc histogram histogramdd hsplit hub hypot i0 i0_ igamma igammac imag
        index_copy index_fill index_put index_put_ index_reduce init_num_threads initial_seed inner
        instance_norm inverse is_anomaly_check_nan_enabled is_anomaly_enabled is_complex is_conj
        is_deterministic_algorithms_warn_only_enabled is_distributed is_inference is_neg is_nonzero
        is_same_size is_signed is_storage is_vulkan_available is_warn_always_enabled isin isneginf
        isposinf isreal istft jagged jit kaiser_window kl_div kron kthvalue layer_norm layout lcm
        lcm_ ldexp ldexp_ lgamma library linalg load lobpcg log10_ log1p_ log2_ log_ logaddexp2
        logcumsumexp logdet logit logit_ logspace lstm lstm_cell lstsq lu lu_solve lu_unpack
        margin_ranking_loss masked masked_scatter matrix_exp matrix_power matrix_rank max_pool1d
        max_pool1d_with_indices max_pool2d max_pool3d memory_format mode monitor mps msort mtia
        multiprocessing mvlgamma nan_to_num_ nanmean nanmedian nanquantile nansum neg_ negative_
        nested newaxis nextafter nonzero_static nuclear_norm orgqr ormqr overrides package
        pairwise_distance pca_lowrank pdist pinverse pixel_shuffle pixel_unshuffle poisson
        poisson_nll_loss polar polygamma positive prelu preserve_format profiler promote_types put
        qr quantile quantization quasirandom rad2deg rad2deg_ randint_like range ravel real
        reciprocal_ relu_ renorm resize_as_ resize_as_sparse_ resolve_conj resolve_neg result_type
        return_types rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell rot90 round_ row_stack
        rrelu rrelu_ rsqrt_ rsub save scalar_tensor scatter_reduce searchsorted seed segment_reduce
        select_scatter selu selu_ serialization set_anomaly_enabled set_default_device
        set_default_dtype set_default_tensor_type set_deterministic_debug_mode
        set_float32_matmul_precision set_flush_denormal set_num_interop_threads set_num_threads
        set_printoptions set_rng_state set_warn_always sgn short sigmoid_ signal signbit sin_ sinc
        sinc_ sinh_ slice_inverse slice_scatter slogdet solve sparse sparse_bsc sparse_bsc_tensor
        sparse_bsr sparse_bsr_tensor sparse_compressed_tensor sparse_coo sparse_coo_tensor
        sparse_csc sparse_csc_tensor sparse_csr sparse_csr_tensor special split_with_sizes sqrt_
        square_ stft storage strided svd svd_lowrank symeig take tan_ tanh_ tensor_split testing
        thread_safe_generator threshold threshold_ to_dlpack torch_version trace trapezoid trapz
        triangular_solve triplet_margin_loss trunc_ typename types uint16 uint32 uint64
        unique_consecutive unravel_index unsafe_chunk unsafe_split unsafe_split_with_sizes
        use_deterministic_algorithms utils vander vdot version view_as_complex view_as_real vmap
        vsplit wait while_loop windows xlogy xlogy_ xpu zero_
    """,
    "minidist.Tensor": """
        H absolute_ acos_ acosh_ addbmm addbmm_ addmv addmv_ addr addr_ adjoint aminmax angle apply_
        arccos arccos_ arccosh arccosh_ arcsin arcsin_ arcsinh arcsinh_ arctan arctan2 arctan2_
        arctan_ arctanh arctanh_ as_strided as_strided_ as_strided_scatter as_subclass asin_ asinh_
        atan2_ atan_ atanh_ bernoulli_ bitwise_left_shift bitwise_left_shift_ bitwise_not_
        bitwise_right_shift bitwise_right_shift_ cauchy_ ccol_indices cdouble cfloat chalf cholesky
        cholesky_inverse cholesky_solve coalesce col_indices conj conj_physical conj_physical_
        const_data_ptr copysign copysign_ corrcoef cosh_ cov cross crow_indices cummax cummin
        cumprod_ cumsum_ data_ptr deg2rad deg2rad_ dense_dim dequantize det diag_embed diagflat
        diagonal_scatter diff digamma digamma_ dim_order dist divide_ dsplit eig eq_ erfc erfc_
        erfinv erfinv_ exp2 exp2_ exponential_ fill_diagonal_ fix fix_ fliplr flipud float_power
        float_power_ fmax fmin fmod fmod_ frac frac_ frexp gcd gcd_ ge_ geometric_ geqrf ger
        get_device grad_dtype greater_ greater_equal_ gt_ hardshrink hash_tensor heaviside
        heaviside_ histc histogram hsplit hypot hypot_ i0 i0_ igamma igamma_ igammac igammac_ imag
        index index_copy index_copy_ index_fill index_fill_ index_put index_put_ index_reduce
        index_reduce_ indices inner int_repr inverse ipu is_coalesced is_complex is_conj is_cpu
        is_distributed is_ipu is_maia is_meta is_mkldnn is_mps is_mtia is_neg is_nested is_nonzero
        is_pinned is_quantized is_same_size is_set_to is_shared is_signed is_sparse is_sparse_csr
        is_vulkan is_xla is_xpu isneginf isposinf isreal istft itemsize kron kthvalue layout lcm
        lcm_ ldexp ldexp_ le_ less_ less_equal_ lgamma lgamma_ log10_ log2_ log_normal_ logaddexp2
        logcumsumexp logdet logical_and_ logical_or_ logical_xor_ logit logit_ lstsq lt_ lu lu_solve
        mH map2_ map_ masked_scatter masked_scatter_ matrix_exp matrix_power mode module_load msort
        mtia multiply_ mvlgamma mvlgamma_ name nanmean nanmedian nanquantile nansum narrow_copy
        ndimension ne_ negative_ new new_empty_strided nextafter nextafter_ nonzero_static
        not_equal_ orgqr ormqr output_nr pin_memory pinverse polygamma polygamma_ positive prelu put
        put_ q_per_channel_axis q_per_channel_scales q_per_channel_zero_points q_scale q_zero_point
        qr qscheme quantile rad2deg rad2deg_ random_ real record_stream reinforce renorm renorm_
        resize resize_ resize_as resize_as_ resize_as_sparse_ resolve_conj resolve_neg rot90
        row_indices scatter_reduce scatter_reduce_ select_scatter set_ sgn sgn_ share_memory_
        signbit sinc sinc_ sinh_ slice_inverse slice_scatter slogdet smm solve sparse_dim
        sparse_mask sparse_resize_ sparse_resize_and_clear_ split_with_sizes squeeze_ sspaddmm stft
        storage storage_offset storage_type subtract_ sum_to_size svd swapaxes_ swapdims_ symeig t_
        take tensor_split to_dense to_mkldnn to_padded_tensor to_sparse to_sparse_bsc to_sparse_bsr
        to_sparse_coo to_sparse_csc to_sparse_csr trace transpose_ triangular_solve true_divide_
        unfold unique_consecutive unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze_
        untyped_storage values vdot volatile vsplit xlogy xlogy_ xpu
    """,
    "minidist.nn": """
        AdaptiveAvgPool3d AdaptiveLogSoftmaxWithLoss AdaptiveMaxPool1d AdaptiveMaxPool2d
        AdaptiveMaxPool3d AlphaDropout AvgPool3d BatchNorm3d Bilinear Buffer CELU ChannelShuffle
        CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d
        Container Conv3d ConvTranspose1d ConvTranspose3d CosineEmbeddingLoss CosineSimilarity
        CrossMapLRN2d DataParallel Dropout1d Dropout3d EmbeddingBag FeatureAlphaDropout Fold
        FractionalMaxPool2d FractionalMaxPool3d GaussianNLLLoss Hardshrink Hardsigmoid
        HingeEmbeddingLoss InstanceNorm1d InstanceNorm2d InstanceNorm3d LPPool1d LPPool2d LPPool3d
        LazyBatchNorm1d LazyBatchNorm2d LazyBatchNorm3d LazyConv1d LazyConv2d LazyConv3d
        LazyConvTranspose1d LazyConvTranspose2d LazyConvTranspose3d LazyInstanceNorm1d
        LazyInstanceNorm2d LazyInstanceNorm3d LazyLinear LinearCrossEntropyLoss
        LinearCrossEntropyOptions LocalResponseNorm MarginRankingLoss MaxPool3d MaxUnpool1d
        MaxUnpool2d MaxUnpool3d MultiLabelMarginLoss MultiLabelSoftMarginLoss MultiMarginLoss
        NLLLoss2d PairwiseDistance PixelShuffle PixelUnshuffle PoissonNLLLoss RNNBase RNNCellBase
        RReLU ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d
        ReplicationPad3d SoftMarginLoss Softmax2d Softmin Softshrink Softsign SyncBatchNorm
        Tanhshrink Threshold TripletMarginLoss TripletMarginWithDistanceLoss Unfold
        UninitializedBuffer UninitializedParameter UpsamplingBilinear2d UpsamplingNearest2d
        ZeroPad1d ZeroPad2d ZeroPad3d common_types factory_kwargs grad intrinsic modules parallel
        parameter qat quantizable quantized
    """,
    "minidist.nn.functional": """
        adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool1d_with_indices adaptive_max_pool2d
        adaptive_max_pool2d_with_indices adaptive_max_pool3d adaptive_max_pool3d_with_indices
        affine_grid alpha_dropout avg_pool3d bilinear celu celu_ channel_shuffle conv3d conv_tbc
        conv_transpose1d conv_transpose3d cosine_embedding_loss dropout1d dropout3d elu_
        embedding_bag feature_alpha_dropout fold fractional_max_pool2d
        fractional_max_pool2d_with_indices fractional_max_pool3d fractional_max_pool3d_with_indices
        gaussian_nll_loss grid_sample grouped_mm gumbel_softmax hardshrink hardsigmoid hardtanh_
        hinge_embedding_loss instance_norm leaky_relu_ local_response_norm lp_pool1d lp_pool2d
        lp_pool3d margin_ranking_loss max_pool1d_with_indices max_pool2d_with_indices max_pool3d
        max_pool3d_with_indices max_unpool1d max_unpool2d max_unpool3d multi_head_attention_forward
        multi_margin_loss multilabel_margin_loss multilabel_soft_margin_loss pairwise_distance pdist
        pixel_shuffle pixel_unshuffle poisson_nll_loss relu_ rrelu rrelu_ scaled_grouped_mm
        scaled_mm selu_ soft_margin_loss softmin softshrink softsign tanhshrink threshold threshold_
        triplet_margin_loss triplet_margin_with_distance_loss unfold upsample upsample_bilinear
        upsample_nearest
    """,
    "minidist.optim": """
        ASGD Adadelta Adafactor Adamax LBFGS NAdam RAdam Rprop SparseAdam swa_utils
        swap_in_optimizer_params_and_state
    """,
    "minidist.optim.lr_scheduler": """
        ChainedScheduler ConstantLR CosineAnnealingWarmRestarts CyclicLR MultiplicativeLR
        PolynomialLR
    """,
    "minidist.nn.init": """
        constant dirac dirac_ eye kaiming_normal kaiming_uniform normal orthogonal sparse sparse_
        uniform xavier_normal xavier_uniform
    """,
    "minidist.nn.utils": """
        clip_grad_norm convert_conv2d_weight_memory_format convert_conv3d_weight_memory_format
        fuse_conv_bn_eval fuse_conv_bn_weights fuse_linear_bn_eval fuse_linear_bn_weights fusion
        init memory_format parametrizations parametrize remove_spectral_norm remove_weight_norm
        skip_init spectral_norm stateless weight_norm
    """,
    "minidist.autograd": """
        Function NestedIOFunction Variable anomaly_mode enforce_grad_layout_policy forward_ad
        function functional grad_mode gradcheck gradgradcheck graph profiler
        set_multithreading_enabled variable
    """,
    "minidist.tensor.cuda": """
        BFloat16Storage BFloat16Tensor BoolStorage BoolTensor ByteStorage ByteTensor
        CUDAPluggableAllocator CharStorage CharTensor ComplexDoubleStorage ComplexFloatStorage
        CudaError DeferredCudaCallError DoubleStorage DoubleTensor Event ExternalStream FloatStorage
        FloatTensor GreenContext HalfStorage HalfTensor IntStorage IntTensor LongStorage LongTensor
        MemPool ShortStorage ShortTensor Stream StreamContext amp caching_allocator_alloc
        caching_allocator_delete caching_allocator_disabled caching_allocator_enable
        can_device_access_peer change_current_allocator check_error clock_rate cudaStatus cudart
        current_blas_handle current_solver_handle current_stream default_stream device
        device_memory_used device_of empty_cache gds get_allocator_backend get_arch_list
        get_device_capability get_device_name get_device_properties get_gencode_flags
        get_per_process_memory_fraction get_rng_state get_rng_state_all get_stream_from_external
        get_sync_debug_mode graph_pool_handle graphs green_contexts host_memory_stats
        host_memory_stats_as_nested_dict init initial_seed ipc_collect is_bf16_supported
        is_initialized is_tf32_supported jiterator list_gpu_processes make_graphed_callables
        manual_seed manual_seed_all max_memory_allocated max_memory_cached max_memory_reserved
        mem_get_info memory memory_cached memory_snapshot memory_stats memory_stats_as_nested_dict
        memory_summary memory_usage nccl nvtx power_draw profiler random
        reset_accumulated_host_memory_stats reset_accumulated_memory_stats
        reset_max_memory_allocated reset_max_memory_cached reset_peak_host_memory_stats
        reset_peak_memory_stats seed seed_all set_per_process_memory_fraction set_rng_state
        set_rng_state_all set_stream set_sync_debug_mode sparse stream streams temperature tunable
        use_mem_pool utilization
    """,
}
