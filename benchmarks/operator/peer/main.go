// The PyTorchJob controller of the training-operator, with the two numbers as flags that its own
// main has none for: the client's requests a second and its burst. Without them it is as shipped.
// Its webhooks are left out, which spares it work.
package main

import (
	"flag"
	"os"

	kubeflowv1 "github.com/kubeflow/training-operator/pkg/apis/kubeflow.org/v1"
	"github.com/kubeflow/training-operator/pkg/config"
	controllerv1 "github.com/kubeflow/training-operator/pkg/controller.v1"
	"github.com/kubeflow/training-operator/pkg/controller.v1/common"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	schedulerpluginsv1alpha1 "sigs.k8s.io/scheduler-plugins/apis/scheduling/v1alpha1"
	"volcano.sh/apis/pkg/apis/scheduling/v1beta1"
)

func main() {
	qps := flag.Float64("qps", 0, "requests a second; 0 leaves the default")
	burst := flag.Int("burst", 0, "requests at once; 0 leaves the default")
	threads := flag.Int("threads", 1, "jobs that are reconciled at the same time")
	flag.StringVar(&config.Config.PyTorchInitContainerImage, "image",
		config.PyTorchInitContainerImageDefault, "image of the init container")
	flag.IntVar(&config.Config.PyTorchInitContainerMaxTries, "tries",
		config.PyTorchInitContainerMaxTriesDefault, "tries of the init container")
	flag.Parse()
	ctrl.SetLogger(zap.New())

	scheme := runtime.NewScheme()
	utilruntime.Must(clientgoscheme.AddToScheme(scheme))
	utilruntime.Must(kubeflowv1.AddToScheme(scheme))
	utilruntime.Must(v1beta1.AddToScheme(scheme))
	utilruntime.Must(schedulerpluginsv1alpha1.AddToScheme(scheme))

	settings := ctrl.GetConfigOrDie()
	if *qps > 0 {
		settings.QPS, settings.Burst = float32(*qps), *burst
	}
	manager, err := ctrl.NewManager(settings, ctrl.Options{
		Scheme:                 scheme,
		Metrics:                metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress: "0",
	})
	check(err)
	setup := controllerv1.SupportedSchemeReconciler[kubeflowv1.PyTorchJobKind]
	check(setup(manager, common.GenNonGangSchedulerSetupFunc(), *threads))
	check(manager.Start(ctrl.SetupSignalHandler()))
}

func check(err error) {
	if err != nil {
		ctrl.Log.Error(err, "the peer ends")
		os.Exit(1)
	}
}
