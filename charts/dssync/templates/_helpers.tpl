{{- define "dssync.name" -}}
{{- if contains "dssync" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-dssync" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "dssync.selector" -}}
app.kubernetes.io/name: dssync-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "dssync.labels" -}}
{{ include "dssync.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "dssync.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "dssync.name" .) }}
{{- end }}

{{- define "dssync.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "dssync.namespaces" -}}
{{- if eq .Values.rbac.scope "Namespaced" }}{{ .Values.watchNamespaces | default (list .Release.Namespace) | join "," }}{{ end }}
{{- end }}

{{- define "dssync.scheme" -}}
{{ if .Values.metrics.tls.secret }}https{{ else }}http{{ end }}
{{- end }}

{{/* Everything that the operator calls on jobs and their children; nothing is granted beyond. */}}
{{- define "dssync.rules" -}}
- apiGroups: [dssync.io]
  resources: [dssyncjobs]
  verbs: [get, list, watch, delete]
- apiGroups: [dssync.io]
  resources: [dssyncjobs/status]
  verbs: [update]
# Never called: lets owner references block deletion where the admission plug-in checks it.
- apiGroups: [dssync.io]
  resources: [dssyncjobs/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [services{{ if eq .Values.workerRbac "PerJob" }}, serviceaccounts{{ end }}]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [list, watch{{ if ne .Values.workerRbac "None" }}, get, create, patch{{ end }}]
{{- if eq .Values.workerRbac "PerJob" }}
# What the operator hands on to launchers; who grants a right must hold it.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [update]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, create, patch]
{{- end }}
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- if .Values.networkPolicy.jobs }}
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch]
{{- end }}
{{- end }}

{{/* The job of helm test: two workers on the processor, which nothing but its image can keep from ending. */}}
{{- define "dssync.trial" -}}
apiVersion: dssync.io/v1alpha1
kind: DSSyncJob
metadata:
  generateName: dssync-trial-
  namespace: {{ .place }}
spec:
  replicas: 2
  nprocPerNode: 1
  sync: {backend: gloo, groupSize: 2}
  {{- if eq .values.workerRbac "None" }}
  rendezvous: {mode: Static}
  {{- end }}
  failurePolicy: {backoffLimit: 1}
  cleanPodPolicy: All
  # Nobody removes it where the trial itself is killed.
  activeDeadlineSeconds: {{ .values.test.seconds }}
  ttlSecondsAfterFinished: 60
  template:
    spec:
      {{- with .values.image.pullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 6 }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        seccompProfile: {type: RuntimeDefault}
      volumes:
      - name: trial
        configMap: {name: {{ .name }}}
      containers:
      - name: worker
        image: {{ .values.test.image }}
        imagePullPolicy: {{ .values.image.pullPolicy }}
        command: [dssync, run, /trial/trial.py]
        resources:
          requests: {cpu: 100m, memory: 512Mi}
        securityContext:
          allowPrivilegeEscalation: false
          capabilities: {drop: [ALL]}
        volumeMounts:
        - {name: trial, mountPath: /trial, readOnly: true}
{{- end }}
